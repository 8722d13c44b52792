"""Long work waits for an idle machine on mains power."""

import pytest

from knowme.learn import idle

NOW = 1_790_000_000_000


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (9.0, 0.1, 0.1))
    monkeypatch.setattr("sys.platform", "linux")


def supply(folder, name, **told):
    (folder / name).mkdir(parents=True)
    for key, text in told.items():
        (folder / name / key).write_text(text + "\n")


def test_a_machine_without_a_battery_is_on_mains(tmp_path, quiet):
    assert idle.waiting(None, NOW, supplies=tmp_path / "none") == ""


def test_a_discharging_battery_makes_it_wait(tmp_path, quiet):
    supply(tmp_path, "BAT0", type="Battery", status="Discharging")
    supply(tmp_path, "AC", type="Mains", online="0")
    assert "battery" in idle.waiting(None, NOW, supplies=tmp_path)


def test_mains_or_a_full_battery_do_not(tmp_path, quiet):
    supply(tmp_path, "BAT0", type="Battery", status="Discharging")
    supply(tmp_path, "AC", type="Mains", online="1")
    assert idle.waiting(None, NOW, supplies=tmp_path) == ""


def test_the_battery_of_a_mouse_is_not_that_of_the_machine(tmp_path, quiet):
    supply(tmp_path, "hid-mouse", type="Battery", status="Discharging", scope="Device")
    assert idle.waiting(None, NOW, supplies=tmp_path) == ""


def test_a_busy_machine_makes_it_wait(tmp_path, quiet, monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 100.0, 0.0))
    assert "busy" in idle.waiting(None, NOW, supplies=tmp_path)


def test_a_question_a_moment_ago_makes_it_wait(tmp_path, quiet):
    assert "question" in idle.waiting(NOW - 60_000, NOW, supplies=tmp_path)
    assert idle.waiting(NOW - idle.QUIET_MS, NOW, supplies=tmp_path) == ""
