"""Which model answers: every stage in a table, and what holds for any message at all."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.errors import InputError
from knowme.intents import Intent
from knowme.privacy import leave
from knowme.route import (
    BAND,
    Budget,
    Learned,
    Message,
    Recall,
    choose,
    directive,
    explain,
)
from knowme.rules import compile_rules
from knowme.settings import (
    ModelSettings,
    PrivacySettings,
    RoutingSettings,
    RuleSettings,
    Settings,
)
from knowme.types import ModelState

PRIMARY = ModelState("primary", "qwen2.5:7b", "ollama", True, 8192)
CODE = ModelState("code", "coder.gguf", "llamacpp", True, 8192, loaded=False, load_ms=4000)
FAST = ModelState("fast", "smollm2-135m", "llamacpp", True, 4096)
VISION = ModelState("vision", "moondream", "ollama", True, 4096, images=True)
CLOUD = ModelState(
    "cloud", "gpt-x", "openai", False, 128_000, price_in=2.5, price_out=10.0, images=True
)
ALL = (PRIMARY, CODE, FAST, VISION, CLOUD)
LONG = (
    "Explain how a central bank steers the interest rates of a whole economy, and which "
    "instruments it has for that, with their history."
)
KNOWN = Recall(0.9, 0.5, True, ("openclaw",))
WORTH_IT = Learned(0.5, 0.05, 50.0)
NOT_WORTH_IT = Learned(0.02, 0.01, 50.0)


def route(
    text=LONG,
    models=ALL,
    *,
    recall=None,
    routing=None,
    privacy=None,
    offline=False,
    budget=None,
    message=None,
    rules=(),
    configured=(),
    **more,
):
    routing = replace(routing or RoutingSettings(), rules=tuple(rules))
    privacy = privacy or PrivacySettings()
    settings = Settings(offline=offline, routing=routing, privacy=privacy, models=configured)
    return choose(
        replace(message or Message("", prompt_tokens=400), text=text),
        recall or Recall(0.1, 0.5, False),
        models,
        settings,
        rules=compile_rules(rules),
        budget=budget or Budget(0.0, 5.0),
        leave=leave(privacy),
        **more,
    )


# --- directives ---------------------------------------------------------------------------------

ROLES = {state.role: state.model for state in ALL}


@pytest.mark.parametrize(
    ("text", "message", "target"),
    [
        ("@code fix it", "fix it", "code"),
        ("@code: fix it", "fix it", "code"),
        ("@Code, fix it", "fix it", "code"),
        ("@gpt-x why", "why", "cloud"),
        ("@qwen2.5:7b why", "why", "primary"),
        ("@qwen2.5 why", "why", "primary"),
        ("@coder why", "why", "code"),
        ("@coder.gguf why", "why", "code"),
        ("/local why", "why", "local"),
        ("/Cloud why", "why", "cloud"),
        ("why /cloud", "why", "cloud"),
        ("why, /local?", "why,?", "local"),
        ("tell @fast a joke", "tell a joke", "fast"),
        ("/cloud", "", "cloud"),
        ("  @code  x", "   x", "code"),
        ("@code @fast x", "@fast x", "code"),
        ("line one\nline two @code", "line one\nline two", "code"),
    ],
)  # fmt: skip
def test_a_directive_is_taken_out_and_nothing_else(text, message, target) -> None:
    assert directive(text, ROLES) == (message, target)


@pytest.mark.parametrize(
    "text",
    [
        "write to me@code.org",
        "mail code@fast",
        "tell @anna I am late",
        "@anna are you there",
        "ls /local/bin and /usr/local",
        "/localhost is down",
        "/cloud/x",
        "/local.txt",
        "the file a/local",
        "@code@server x",
        "```\n@code x\n```",
        "run `x @code y` now",
        "@Primary\n@Bean\npublic Foo foo() {}",
        "class A:\n    @code\n    def f(self): pass",
        "@",
        "@ code",
        "",
        "@property\ndef x(self): ...",
    ],
)
def test_what_is_no_directive_is_left_alone(text) -> None:
    assert directive(text, ROLES) == (text, "")


def test_a_misspelt_model_is_told_and_the_message_left_whole() -> None:
    assert directive("@primry why", ROLES) == ("@primry why", "?primry")
    made = route("@primry why is the sky blue")
    assert made.message == "@primry why is the sky blue"
    assert "@primry is no model here" in made.reason and "@primary" in made.reason


def test_a_misspelt_local_model_is_never_answered_by_a_remote_one() -> None:
    made = route(f"@primry {LONG}", learned=WORTH_IT)
    assert made.model == "primary" and "@primry may have meant" in made.refused["cloud"]


def test_cloud_and_local_are_understood_after_an_at_where_no_role_is_called_so() -> None:
    assert directive("@cloud x", {"primary": "m"}) == ("x", "cloud")
    assert directive("@local x", {"primary": "m"}) == ("x", "local")


@given(st.sampled_from(sorted(ROLES)), st.text(max_size=80))
def test_a_role_in_front_of_any_text_is_stripped_exactly(role, text) -> None:
    assert directive(f"@{role} {text}", ROLES) == (text, role)


@given(st.text(alphabet="ab @/\n`local,.:", max_size=60), st.dictionaries(
    st.sampled_from(["a", "b", "ab"]), st.sampled_from(["", "b:1", "x/ab.gguf"])))  # fmt: skip
def test_a_directive_only_ever_takes_away_one_word(text, roles) -> None:
    left, target = directive(text, roles)
    if not target or target.startswith("?"):
        assert left == text
    else:
        gone = len(text) - len(left)
        at = next((i for i, (a, b) in enumerate(zip(text, left, strict=False)) if a != b),
                  len(left))  # fmt: skip
        assert any(text[:i] + text[i + gone :] == left for i in range(max(0, at - gone), at + 1))


# --- gates --------------------------------------------------------------------------------------


def test_who_is_asked_for_answers() -> None:
    for state in (PRIMARY, CODE, FAST, VISION, CLOUD):
        made = route(f"@{state.role} hello")
        assert (made.model, made.stage, made.confidence) == (state.role, "gate", 1.0)
        assert made.message == "hello" and not made.refused


def test_local_and_cloud_name_the_machine_and_not_the_model() -> None:
    assert route(f"/cloud {LONG}").model == "cloud"
    assert route(f"/local {LONG}", learned=WORTH_IT).model == "primary"
    other = replace(CLOUD, role="claude", model="c")
    assert route("/cloud hi", (PRIMARY, other)).model == "claude"


def test_cloud_without_any_is_told() -> None:
    made = route("/cloud hi", (PRIMARY,))
    assert made.model == "primary" and "there is none" in made.reason


def test_who_asks_for_this_machine_is_not_taken_beyond_it_even_when_it_fails() -> None:
    routing = RoutingSettings(fallback=("cloud", "fast"))
    for ask in ("/local hi", "@primary hi"):
        assert route(ask, routing=routing).alternatives == ("fast",)
    down = replace(PRIMARY, down="it does not run")
    made = route("/local hi", (down, CLOUD), routing=routing)
    assert (made.model, made.alternatives, made.confidence) == ("primary", (), 0.0)
    made = route(f"@primary {LONG}", (down, FAST, CLOUD), learned=WORTH_IT)
    assert made.model == "fast" and "you asked for" in made.refused["cloud"]


@pytest.mark.parametrize(
    ("why", "models", "more"),
    [
        ("window", (replace(PRIMARY, context_tokens=500), CLOUD), {}),
        ("pictures", (PRIMARY, CLOUD), {"message": Message("", images=True)}),
        ("cannot answer now", (replace(PRIMARY, down="no answer."), CLOUD), {}),
        ("another machine, and offline", (PRIMARY, FAST), {
            "offline": True,
            "configured": (ModelSettings("primary", url="http://192.0.2.7:11434"),
                           ModelSettings("fast")),
        }),
    ],
)  # fmt: skip
def test_a_model_that_cannot_is_refused_and_the_next_is_asked(why, models, more) -> None:
    made = route(models=models, **more)
    assert made.model == models[1].role
    assert why in made.refused["primary"]


@pytest.mark.parametrize(
    ("why", "more"),
    [
        ("offline", {"offline": True}),
        ("secret (password)", {"message": Message("", secrets=("password",))}),
        ("privacy.question", {"privacy": PrivacySettings(question="deny")}),
        ("budget", {"budget": Budget(4.999, 5.0)}),
        ("budget", {"budget": Budget(0.0, 0.0)}),
        ("budget", {"budget": Budget(float("nan"), 5.0)}),
        ("cannot answer now", {"models": (PRIMARY, replace(CLOUD, down="429"))}),
    ],
)
@pytest.mark.parametrize("asked", ["", "/cloud ", "@cloud "])
def test_a_remote_model_that_may_not_answers_not_even_who_asks_for_it(why, more, asked) -> None:
    made = route(asked + LONG, learned=WORTH_IT, **more)
    assert made.model == "primary" and made.confidence > 0
    assert why in made.refused["cloud"]
    assert not asked or why in made.reason  # they are told
    assert "cloud" not in made.alternatives


def test_a_remote_model_that_is_free_needs_no_budget() -> None:
    free = replace(CLOUD, price_in=0.0, price_out=0.0)
    made = route(models=(PRIMARY, free), budget=Budget(9.0, 5.0), learned=WORTH_IT)
    assert made.model == "cloud" and made.price == 0.0


def test_memory_that_may_not_leave_keeps_the_question_home_unless_cloud_is_asked_for() -> None:
    made = route(recall=KNOWN, learned=WORTH_IT)
    assert made.model == "primary" and "openclaw may not leave" in made.refused["cloud"]
    asked = route(f"/cloud {LONG}", recall=KNOWN)
    assert asked.model == "cloud" and "without that" in asked.reason and not asked.refused


@pytest.mark.parametrize(
    ("sources", "policy", "home"),
    [
        (("notes",), {"notes": "allow"}, False),
        (("notes",), {"notes": "placeholders"}, False),
        (("notes", "openclaw"), {"notes": "allow"}, True),
        ((), {}, True),
    ],
)
def test_each_source_of_memory_has_its_own_word(sources, policy, home) -> None:
    privacy = PrivacySettings(sources=policy)
    made = route(recall=Recall(0.9, 0.5, True, sources), privacy=privacy, learned=WORTH_IT)
    assert (made.model == "primary") == home


def test_weak_recall_keeps_nothing_home() -> None:
    made = route(recall=Recall(0.2, 0.5, False, ("openclaw",)), learned=WORTH_IT)
    assert made.model == "cloud"


def test_a_message_that_leans_on_turns_that_may_not_leave_stays_home() -> None:
    told = "Explain that in more words, please."
    routing = RoutingSettings(short_chars=0)
    assert route(told, routing=routing, learned=WORTH_IT).model == "cloud"
    made = route(told, routing=routing, learned=WORTH_IT, current="primary")
    assert made.model == "primary" and "those turns may not leave" in made.refused["cloud"]
    open_ = PrivacySettings(history="allow")
    made = route(told, routing=routing, learned=WORTH_IT, current="primary", privacy=open_)
    assert made.model == "cloud"


def test_a_picture_goes_to_the_model_for_pictures_at_home_first() -> None:
    message = Message("", images=True)
    made = route("what is this", message=message)
    assert (made.model, made.stage) == ("vision", "gate")
    assert route("what is this", (PRIMARY, CLOUD), message=message).model == "cloud"
    sees = replace(PRIMARY, images=True)
    made = route("what is this", (sees, VISION, CLOUD), message=message)
    assert (made.model, made.alternatives) == ("vision", ("primary",))


def test_tools_prefer_a_local_model_that_has_them() -> None:
    message = Message("", tools=True)
    bare = replace(PRIMARY, tools=False)
    assert (
        route(models=(bare, replace(FAST, role="agent"), CLOUD), message=message).model == "agent"
    )
    assert route(models=(bare, CLOUD), message=message).model == "primary"


# --- rules --------------------------------------------------------------------------------------


def test_the_first_rule_wins_over_what_the_message_looks_like() -> None:
    rules = [RuleSettings("sky", "fast"), RuleSettings("blue", "code")]
    made = route("def f(): why is the sky blue", rules=rules)
    assert (made.model, made.stage) == ("fast", "rule") and "rule 1" in made.reason.lower()


def test_a_rule_may_name_a_model_by_its_own_name() -> None:
    assert route(rules=[RuleSettings("bank", "gpt-x")]).model == "cloud"


def test_a_rule_does_not_open_a_gate() -> None:
    rules = [RuleSettings("bank", "cloud")]
    for more in ({"recall": KNOWN}, {"budget": Budget(5.0, 5.0)}, {"offline": True}):
        made = route(rules=rules, **more)
        assert made.model == "primary" and "Rule 1 sends this to cloud, but" in made.reason


def test_a_rule_for_a_model_that_is_gone_is_told_and_passed_over() -> None:
    made = route(rules=[RuleSettings("bank", "nobody")])
    assert made.model == "primary" and "'nobody', which is no model" in made.reason


def test_rules_see_the_message_without_its_directive() -> None:
    rules = [RuleSettings("primry", "fast"), RuleSettings("^hello", "code")]
    assert route("/local hello there, how does one cook rice", rules=rules).stage == "gate"


# --- heuristics ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "model", "category"),
    [
        ("def f(x): return x  # why does it fail", "code", "COMPLEX"),
        ("Olá, tudo bem?", "fast", "PERSONAL"),
        ("Guten Morgen!", "fast", "PERSONAL"),
        ("I prefer my answers in metric units, and always without any of those long lists that "
         "you like to write so much.", "primary", "PERSONAL"),
        ("What did I decide about the heating?", "primary", "PERSONAL"),
        ("Let me know the capital of Peru", "fast", "COMPLEX"),
        (LONG, "primary", "COMPLEX"),
    ],
)  # fmt: skip
def test_what_a_message_looks_like_decides(text, model, category) -> None:
    made = route(text)
    assert (made.model, made.category) == (model, category)


def test_heuristics_can_be_switched_off() -> None:
    made = route("def f(x): pass", routing=RoutingSettings(heuristics=False))
    assert (made.model, made.stage) == ("primary", "default")


def test_personal_stays_home_however_much_the_cloud_would_gain() -> None:
    assert route("What did I decide about the heating?", learned=WORTH_IT).model == "primary"


def test_code_without_a_model_for_it_is_weighed_like_anything_else() -> None:
    text = "def f(x): return x  # why does it fail"
    assert route(text, (PRIMARY, CLOUD)).model == "primary"
    assert route(text, (PRIMARY, CLOUD), learned=WORTH_IT).model == "cloud"
    away = replace(CLOUD, role="code", model="c")
    assert route(text, (PRIMARY, CLOUD, away), learned=WORTH_IT).model == "code"
    assert route(text, (PRIMARY, CLOUD, away)).model == "primary"


def test_a_short_message_about_memory_is_not_for_the_fast_one() -> None:
    assert route("which pump was it", recall=KNOWN).model == "primary"
    assert route("which pump is it").model == "fast"


def test_a_fast_model_that_takes_long_to_load_is_not_fast() -> None:
    cold = replace(FAST, loaded=False, load_ms=6000)
    made = route("which pump is it", (PRIMARY, cold))
    assert made.model == "primary" and "loaded" in made.reason
    assert route("hi", (replace(PRIMARY, load_ms=9000), cold)).model == "fast"


def test_where_all_is_equal_the_model_that_is_loaded_goes_on() -> None:
    cold = replace(PRIMARY, loaded=False, load_ms=9000)
    warm = replace(CODE, loaded=True, load_ms=0.0)
    assert route(models=(cold, warm), current="code").model == "code"
    assert route(models=(PRIMARY, warm), current="code").model == "primary"
    assert route("Explain that again", (PRIMARY, warm), current="code").model == "code"
    assert route(models=(cold, CODE), current="code").model == "primary"
    assert route(models=(cold, FAST), current="fast").model == "primary"


def test_an_intent_that_was_classified_counts_more_than_words() -> None:
    personal = Intent("PERSONAL", 0.93, "high", "it asks what memory knows")
    made = route(intent=personal, learned=WORTH_IT)
    assert (made.model, made.category, made.confidence) == ("primary", "PERSONAL", 0.93)
    assert route("def f(x): return x", intent=personal).category == "COMPLEX"
    complex_ = Intent("COMPLEX", 0.8, "high", "knowledge")
    text = "I like rivers: " + LONG
    assert route(text).category == "PERSONAL"
    assert route(text, intent=complex_, learned=WORTH_IT).model == "cloud"


# --- what was learned ---------------------------------------------------------------------------

# 400 and 256 tokens cost 0.00356: at a rate of 50 the price is 0.178.
COST, PRICE = 0.00356, 0.178


def test_the_cloud_is_asked_only_where_the_gain_exceeds_its_price() -> None:
    made = route(learned=WORTH_IT)
    assert (made.model, made.stage) == ("cloud", "learned")
    assert (made.gain, made.gain_sd) == (0.5, 0.05)
    assert made.cost == pytest.approx(COST) and made.price == pytest.approx(PRICE)
    assert made.confidence > 0.99 and made.alternatives == ("primary", "code", "fast", "vision")
    made = route(learned=NOT_WORTH_IT)
    assert (made.model, made.stage) == ("primary", "learned") and made.confidence > 0.99


def test_without_the_learned_model_nothing_goes_away_by_itself() -> None:
    assert route().model == "primary" and route().gain is None
    made = route(learned=WORTH_IT, routing=RoutingSettings(learned=False))
    assert made.model == "primary" and made.gain is None


def test_a_near_tie_stays_home_or_is_looked_at_again() -> None:
    near = Learned(PRICE + 0.01, 0.1, 50.0)
    made = route(learned=near)
    assert (made.model, made.check, made.propensity) == ("primary", False, 1.0)
    assert "cloud" not in made.alternatives
    made = route(learned=near, routing=RoutingSettings(uncertain="check"))
    assert (made.model, made.check) == ("primary", True)
    assert made.alternatives[0] == "cloud" and len(set(made.alternatives)) == 4


def test_the_band_of_near_ties_ends_where_it_says() -> None:
    inside, outside = PRICE + 0.99 * BAND * 0.1, PRICE + 1.01 * BAND * 0.1
    assert route(learned=Learned(inside, 0.1, 50.0)).model == "primary"
    assert route(learned=Learned(outside, 0.1, 50.0)).model == "cloud"


def test_lots_fall_as_often_as_they_say_and_only_in_near_ties() -> None:
    near = Learned(PRICE, 0.1, 50.0)
    routing = RoutingSettings(explore=0.5)
    drawn = [route(learned=near, routing=routing, seed=str(n)) for n in range(800)]
    away = [made for made in drawn if made.model == "cloud"]
    assert 0.2 < len(away) / len(drawn) < 0.3
    assert {made.propensity for made in away} == {0.25}
    assert {made.propensity for made in drawn if made.model == "primary"} == {0.75}
    clear = [route(learned=WORTH_IT, routing=routing, seed=str(n)) for n in range(50)]
    assert {(made.model, made.propensity) for made in clear} == {("cloud", 1.0)}


def test_a_price_without_end_is_no_near_tie() -> None:
    made = route(learned=Learned(0.9, 5.0, float("inf")), routing=RoutingSettings(explore=1.0))
    assert made.model == "primary" and made.confidence == 1.0
    beyond = Learned(0.9, 20.0, 1000.0)  # a price of 3.56: no gain can be that great
    assert route(learned=beyond, routing=RoutingSettings(explore=1.0), seed="1").propensity == 1.0


# --- defaults and alternatives ------------------------------------------------------------------


def test_a_remote_primary_is_what_the_person_made_it() -> None:
    away = replace(CLOUD, role="primary")
    assert route(models=(FAST, away)).model == "primary"
    assert route("What did I decide about the heating?", (FAST, away)).model == "fast"
    assert route(models=(FAST, away), recall=KNOWN).model == "fast"


def test_without_a_primary_the_first_local_model_for_anything_answers() -> None:
    writer = replace(PRIMARY, role="writer", model="w")
    assert route(models=(FAST, CLOUD, writer)).model == "writer"
    assert route(models=(FAST,)).model == "fast"


def test_after_a_failure_other_local_models_are_asked_and_never_a_remote_one() -> None:
    assert route().alternatives == ("code", "fast", "vision")
    assert route(models=(PRIMARY, replace(FAST, down="gone"), CODE)).alternatives == ("code",)


def test_a_list_of_fallbacks_is_kept_to_and_the_gates_hold_for_it() -> None:
    routing = RoutingSettings(fallback=("cloud", "fast", "nobody", "primary"))
    assert route(routing=routing).alternatives == ("cloud", "fast")
    assert route(routing=routing, recall=KNOWN).alternatives == ("fast",)
    assert route("/cloud hi", routing=routing).alternatives == ("fast", "primary")


def test_where_every_model_is_refused_the_least_bad_is_named_with_every_reason() -> None:
    message = Message("", images=True, prompt_tokens=10)
    models = (replace(PRIMARY, down="no answer"), FAST, replace(CLOUD, images=False))
    made = route(models=models, message=message)
    assert (made.model, made.confidence, made.alternatives) == ("fast", 0.0, ())
    assert set(made.refused) == {"primary", "fast", "cloud"}
    for told in ("no answer", "fast: it cannot look", "cloud: it cannot look"):
        assert told in made.reason


def test_no_model_at_all_is_an_error() -> None:
    with pytest.raises(InputError):
        route(models=())


# --- what holds for any message -----------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=150),
    st.sampled_from(
        [LONG, "hi", "/cloud why", "/local why", "@cloud x", "@code x", "@primry x", "and that?",
         "def f(): pass", "What did I decide?", "I like tea", ""]
    ),
)  # fmt: skip
STATES = st.builds(
    ModelState,
    role=st.sampled_from(["primary", "code", "fast", "vision", "cloud", "other"]),
    model=st.sampled_from(["", "a", "b:1"]),
    engine=st.just("echo"),
    local=st.booleans(),
    context_tokens=st.sampled_from([512, 4096, 128_000]),
    price_in=st.sampled_from([0.0, 2.5]),
    price_out=st.sampled_from([0.0, 10.0]),
    images=st.booleans(),
    tools=st.booleans(),
    load_ms=st.sampled_from([0.0, 500.0, 9000.0]),
    down=st.sampled_from(["", "", "", "gone"]),
)
POLICY = st.sampled_from(["allow", "placeholders", "deny"])
CASES = st.fixed_dictionaries(
    {
        "text": TEXTS,
        "models": st.lists(STATES, min_size=1, max_size=5, unique_by=lambda s: s.role),
        "recall": st.builds(
            Recall, st.floats(0, 1), st.just(0.5), st.booleans(),
            st.sampled_from([(), ("a",), ("a", "b")]),
        ),
        "routing": st.builds(
            RoutingSettings,
            heuristics=st.booleans(), learned=st.booleans(),
            uncertain=st.sampled_from(["local", "check"]),
            fallback=st.sampled_from([(), ("cloud", "fast"), ("nobody",)]),
            explore=st.sampled_from([0.0, 1.0]),
        ),
        "privacy": st.builds(
            PrivacySettings, question=POLICY, history=POLICY, recalled=POLICY,
            sources=st.sampled_from([{}, {"a": "allow"}, {"a": "deny", "b": "allow"}]),
        ),
        "offline": st.booleans(),
        "budget": st.builds(Budget, st.sampled_from([0.0, 4.9999, 7.0]), st.just(5.0)),
        "message": st.builds(
            Message, text=st.just(""), images=st.booleans(), tools=st.booleans(),
            prompt_tokens=st.sampled_from([0, 1000, 50_000]),
            secrets=st.sampled_from([(), ("key",)]),
        ),
        "learned": st.one_of(
            st.none(), st.builds(Learned, st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1e6))
        ),
        "rules": st.sampled_from([(), (RuleSettings("h|e", "cloud"),)]),
        "current": st.sampled_from(["", "primary", "cloud", "gone"]),
        "seed": st.text(max_size=3),
    }
)  # fmt: skip


@given(CASES)
def test_routing_is_total_and_deterministic(case) -> None:
    made = route(**case)
    roles = {state.role for state in case["models"]}
    assert made.model in roles and set(made.alternatives) <= roles - {made.model}
    assert set(made.refused) <= roles and made.reason
    assert 0.0 <= made.confidence <= 1.0 and 0.0 < made.propensity <= 1.0
    assert made.category in ("PERSONAL", "COMPLEX")
    assert made == route(**case)
    assert all(explain(made))


@given(CASES)
def test_a_refused_model_is_chosen_only_where_all_are_refused(case) -> None:
    made = route(**case)
    roles = {state.role for state in case["models"]}
    if set(made.refused) < roles:
        assert made.model not in made.refused and made.confidence > 0
    else:
        assert made.confidence == 0.0 and made.alternatives == ()
    assert not set(made.alternatives) & set(made.refused)


@given(CASES)
def test_what_may_not_leave_goes_to_no_remote_model(case) -> None:
    made = route(**case)
    by_role = {state.role: state for state in case["models"]}
    away = [role for role in (made.model, *made.alternatives) if not by_role[role].local]
    away = [role for role in away if role not in made.refused]
    if not away:
        return
    assert not case["offline"] and not case["message"].secrets
    assert case["privacy"].question != "deny"
    budget = case["budget"]
    assert all(budget.spent < budget.monthly or not (by_role[r].price_in or by_role[r].price_out)
               for r in away)  # fmt: skip
    recall, policy = case["recall"], leave(case["privacy"])
    asked = directive(case["text"], {s.role: s.model for s in case["models"]})[1]
    if recall.known and not asked:
        assert all(policy.may(f"recalled:{source}") for source in recall.sources)
        assert recall.sources or policy.may("recalled")
    assert asked != "local"


@given(CASES)
def test_a_remote_model_is_asked_by_itself_only_where_it_is_worth_it_or_alone(case) -> None:
    made = route(**{**case, "rules": ()})
    by_role = {state.role: state for state in case["models"]}
    asked = directive(case["text"], {s.role: s.model for s in case["models"]})[1]
    if by_role[made.model].local or made.stage == "gate" or asked:
        return
    worth = made.price is not None and made.gain > made.price - BAND * made.gain_sd
    local = [s for s in case["models"] if s.local and s.role not in made.refused]
    assert worth or made.model == "primary" or not local


# --- telling ------------------------------------------------------------------------------------


def test_a_decision_is_told_as_a_person_wants_it() -> None:
    lines = "\n".join(explain(route(learned=WORTH_IT), leave(PrivacySettings())))
    assert lines.startswith("cloud answers (by what was learned")
    for told in (
        "gain 0.50 ± 0.05",
        "price is 0.18",
        "If it fails: primary, then code",
        "May leave",
    ):
        assert told in lines
    lines = "\n".join(explain(route(recall=KNOWN)))
    assert "Not cloud: memory bears on it" in lines
    lines = "\n".join(explain(route(models=(replace(PRIMARY, down="gone"),))))
    assert lines.startswith("No model passes; primary is the least bad.")
