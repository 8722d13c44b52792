"""Pieces of texts are found among any bytes, and nothing else is."""

import json

import zstandard
from hypothesis import given
from hypothesis import strategies as st
from lived import forms

from knowme.forget import probes

SECRET = "Qzwhyx the heron nests behind the abandoned quarry near Xylophonia"


@given(st.binary(max_size=60), st.text(min_size=8, max_size=120), st.binary(max_size=60), st.data())
def test_every_run_of_a_text_that_is_long_enough_is_found_in_any_bytes(before, text, after, data):
    needles = probes.Needles(7)
    needles.add([text])
    form = data.draw(st.sampled_from(forms(text)))
    assert needles.within(before + form + after)
    if len(form) >= probes.LONG:
        length = min(len(form), probes.LONG + probes.STEP - 1)
        at = data.draw(st.integers(0, len(form) - length))
        assert needles.within(before + form[at : at + length] + after)
    again = probes.Needles.read(json.loads(json.dumps(needles.told())))
    assert again.within(before + form + after) == needles.within(before + form + after)


@given(st.lists(st.text("abc ", min_size=16, max_size=60), max_size=8), st.binary(max_size=400))
def test_what_does_not_stand_there_is_not_found(texts, data) -> None:
    needles = probes.Needles()
    needles.add(texts)
    pieces = {
        piece for text in texts for form in probes.forms(text) for piece in probes._pieces(form)
    }
    assert bool(needles.within(data)) == any(piece in data for piece in pieces)


def test_a_piece_is_found_across_the_borders_of_what_is_read_at_once(tmp_path) -> None:
    needles = probes.Needles()
    needles.add([SECRET])
    for size in (probes.CHUNK, 8 * probes.CHUNK):
        for shift in (-40, -16, -8, -1, 0):
            file = tmp_path / "large"
            file.write_bytes(b"\xee" * (size + shift) + SECRET.encode() + b"\xee" * 50)
            assert probes.in_file(file, needles)
    said = " ".join(f"{n * 7919 % 1013} herons" for n in range(400)) + SECRET
    compressed = zstandard.ZstdCompressor().compress(said.encode())
    assert not needles.within(compressed) and needles.stands(compressed)


def test_a_short_phrase_is_found_as_words_and_not_within_others() -> None:
    needles = probes.Needles()
    needles.add_phrase("Bo Li")
    for text in ("we saw BO  Li.", '{"a": "x\\nBo Li"}', "Bo, Li"):
        assert needles.stands(text), text
    for text in ("Bob Li", "Bo Lima", "Li Bo"):
        assert not needles.stands(text), text
