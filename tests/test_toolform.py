"""Tool calls by a grammar: what the model is told, and what is read while it answers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowme.engines import toolform
from knowme.types import ChatMessage, Options, ToolCall

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "required": ["city"]}},
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time."}}
QUESTION = [ChatMessage("system", "Be brief."), ChatMessage("user", "How warm is it?")]


def read(text: str, sizes=(1,)):
    """Feed the text in pieces of these sizes, again and again."""
    reply, at, turn, said = toolform.Reply(), 0, 0, ""
    while at < len(text):
        size = sizes[turn % len(sizes)]
        said += reply.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    rest, calls = reply.end()
    return said + rest, calls


@given(st.text(), st.lists(st.integers(1, 9), min_size=1), st.booleans(), st.booleans())
def test_text_comes_out_as_it_went_in_however_it_is_cut(text, sizes, ascii_only, spaced):
    written = json.dumps({"response": text}, ensure_ascii=ascii_only)
    if spaced:
        written = "\n " + written.replace('{"response": "', '{ "response" :  "', 1)
    assert read(written, sizes) == (text, ())


def test_text_is_passed_on_as_it_comes():
    reply = toolform.Reply()
    pieces = ['{"resp', 'onse": "Ye', "s, ", "\\u00e", '9t"', "}"]
    assert [reply.feed(piece) for piece in pieces] == ["", "Ye", "s, ", "", "ét", ""]


@given(st.dictionaries(st.text(), st.integers() | st.text()), st.integers(1, 9))
def test_a_call_comes_out_whole(arguments, size):
    written = json.dumps({"tool_call": {"name": "weather", "arguments": arguments}})
    text, (call,) = read(written, (size,))
    assert text == "" and call.name == "weather" and json.loads(call.arguments) == arguments
    assert call.id.startswith("call_")
    for length in range(1, len(written)):  # cut off, it is no call and no text
        assert read(written[:length], (size,)) == ("", ())


def test_a_half_surrogate_does_not_stop_the_text():
    assert read('{"response": "a\\ud83dx\\ude00b"}')[0] == "a\ufffdx\ufffdb"
    assert read('{"response": "\\ud83d\\ude00"}')[0] == "😀"


def test_an_answer_of_a_shape_of_its_own_is_that_json():
    assert read('{"response": {"year": 2026}}') == ('{"year": 2026}', ())


def test_what_is_not_in_the_form_is_text():
    assert read("I would rather not.")[0] == "I would rather not."


def test_the_tools_stand_in_the_system_message_and_a_schema_keeps_to_them():
    messages, options = toolform.rewritten(QUESTION, Options(tools=(WEATHER, CLOCK)))
    assert [said.role for said in messages] == ["system", "user"]
    assert messages[0].content.startswith("Be brief.\n\nYou may call a tool.")
    assert '"name": "weather"' in messages[0].content and '"The time."' in messages[0].content
    assert options.tools == () and options.tool_choice is None
    *calls, answer = options.json_schema["anyOf"]
    named = [call["properties"]["tool_call"]["properties"]["name"]["const"] for call in calls]
    assert named == ["weather", "clock"] and answer["required"] == ["response"]


@pytest.mark.parametrize(
    ("choice", "names", "may_answer"),
    [
        ("auto", ["weather", "clock"], True),
        (None, ["weather", "clock"], True),
        ("required", ["weather", "clock"], False),
        ({"type": "function", "function": {"name": "clock"}}, ["clock"], False),
    ],
)
def test_a_choice_of_tools_is_kept_to(choice, names, may_answer):
    options = Options(tools=(WEATHER, CLOCK), tool_choice=choice)
    _, options = toolform.rewritten(QUESTION, options)
    ways = options.json_schema["anyOf"]
    assert [w["required"] for w in ways].count(["response"]) == int(may_answer)
    calls = [w["properties"]["tool_call"] for w in ways if w["required"] == ["tool_call"]]
    assert [call["properties"]["name"]["const"] for call in calls] == names


def test_without_tools_nothing_is_asked_of_the_model():
    for options in (Options(), Options(tools=(WEATHER,), tool_choice="none")):
        messages, found = toolform.rewritten(QUESTION, options)
        assert messages == QUESTION and found.tools == () and found.json_schema is None


def test_earlier_calls_and_results_become_plain_messages():
    call = ToolCall("c1", "weather", '{"city": "Lisbon"}')
    said = [
        ChatMessage("user", "How warm is it?"),
        ChatMessage("assistant", "Let me look.", tool_calls=(call, ToolCall("c2", "clock", ""))),
        ChatMessage("tool", "18 degrees", tool_call_id="c1"),
        ChatMessage("tool", "noon", tool_call_id="c2"),
    ]
    found, _ = toolform.rewritten(said, Options())
    assert [message.role for message in found] == ["user", "assistant", "user"]
    first, second = found[1].content.splitlines()[1:]
    assert json.loads(first)["tool_call"] == {"name": "weather", "arguments": {"city": "Lisbon"}}
    assert json.loads(second)["tool_call"] == {"name": "clock", "arguments": {}}
    assert "Result of weather:\n18 degrees" in found[2].content
    assert "Result of clock:\nnoon" in found[2].content
