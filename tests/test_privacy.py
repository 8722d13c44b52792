"""What may leave, by what it is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.privacy import CLASSES, Leave, describe, leave, needed_names
from knowme.settings import POLICIES, PrivacySettings, Settings


def test_by_default_only_the_question_leaves():
    policy = leave(PrivacySettings())
    assert {cls for cls in CLASSES if policy.may(cls)} == {"question"}
    assert policy.policy("recalled:openclaw") == "deny"
    assert policy.policy("sent") == "allow"  # it went before
    assert policy.policy("system") == "allow"


def test_a_class_that_nobody_named_is_denied():
    for cls in ("journal", "recalled:", "", "question:x:y", "files2"):
        assert Leave({}).policy(cls) == "deny"
        assert leave(PrivacySettings()).policy(cls) == (
            "allow" if cls[:9] == "question:" else "deny"
        )


@pytest.mark.parametrize("cls", ["secret", "sensitive"])
@given(
    st.dictionaries(st.sampled_from([*CLASSES, "secret", "sensitive"]), st.sampled_from(POLICIES))
)
def test_a_secret_and_what_is_sensitive_never_leave(cls, classes):
    assert Leave(classes).policy(cls) == "deny"
    assert not Leave(classes).may(cls)


def test_a_source_refines_what_is_recalled():
    settings = PrivacySettings(
        recalled="deny", sources={"markdown": "allow", "openclaw": "placeholders"}
    )
    policy = leave(settings)
    assert policy.policy("recalled:markdown") == "allow"
    assert policy.policy("recalled:openclaw") == "placeholders"
    assert policy.policy("recalled:other") == policy.policy("recalled") == "deny"


def test_what_is_of_no_known_source_is_kept_as_the_closest_one():
    policy = leave(PrivacySettings(recalled="allow", sources={"markdown": "allow", "x": "deny"}))
    assert policy.policy("recalled") == "deny" and policy.policy("recalled:other") == "allow"
    assert "May leave this machine: your question, what is recalled" in describe(policy)
    names = leave(PrivacySettings(recalled="allow", sources={"x": "placeholders"}))
    assert names.policy("recalled") == "placeholders"
    assert Leave({"recalled:markdown": "allow"}).policy("recalled") == "deny"


def test_an_answer_that_names_were_put_back_into_goes_again_only_without_them():
    with_names = leave(PrivacySettings(recalled="placeholders"))
    assert with_names.policy("sent") == "placeholders"
    assert (
        leave(PrivacySettings(sources={"notes": "placeholders"})).policy("sent") == "placeholders"
    )
    assert leave(PrivacySettings(question="deny")).policy("sent") == "deny"
    assert leave(PrivacySettings(question="placeholders")).policy("sent") == "placeholders"


def test_names_are_hidden_in_all_of_a_prompt_or_in_nothing():
    policy = leave(PrivacySettings(recalled="placeholders"))
    assert policy.hides_names(["question", "recalled:openclaw"])
    assert not policy.hides_names(["question"])


def test_the_names_are_the_persons_own_those_listed_and_those_who_spoke():
    settings = replace(
        Settings(), name="Inês Duarte", privacy=PrivacySettings(names=("Rex", "ines duarte", "B"))
    )
    speakers = ["", "assistant", "User", "Tomás", "inês duarte", "X", " tomás "]
    assert needed_names(settings, speakers) == ("Inês Duarte", "Rex", "ines duarte", "B", "Tomás")


def test_the_policy_can_be_told_in_words():
    told = describe(leave(PrivacySettings(recalled="placeholders", sources={"diary": "deny"})))
    assert "May leave this machine: your question." in told
    assert "With names replaced: what is recalled from memory." in told
    assert "what is recalled from diary" in told.partition("Never:")[2]
    assert "password" in told
    assert describe(leave(PrivacySettings(question="deny"))).startswith("Nothing may leave")


@pytest.mark.parametrize("policy", POLICIES)
def test_each_setting_is_obeyed(policy):
    for cls in CLASSES:
        assert leave(replace(PrivacySettings(), **{cls: policy})).policy(cls) == policy
