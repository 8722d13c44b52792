"""The stages one after the other: data set, training, export, measurement, adoption.

Promises: each stage runs alone and leaves its result in the run's folder; what is done is not done
again; nothing is used before it was measured, but by force, and that is recorded.
Refuses to know: how a stage does its work, and how its result is shown.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowme import adoptions, plugins
from knowme.db import rows, value
from knowme.errors import InputError, TrainError
from knowme.learn import runs
from knowme.lock import Lock
from knowme.seams import Report
from knowme.times import iso, now_ms, parse_time

if TYPE_CHECKING:
    from knowme.home import Home
    from knowme.learn.dataset import Wanted
    from knowme.learn.presets import Estimate
    from knowme.seams import Trainer
    from knowme.types import TrainSpec

Tell = Callable[[int, int, str], None]
MONTH_MS = 30 * 86_400_000
EXTRA = "pip install 'knowme[train]'"


def wanted(home: Home, purpose: str, **more: Any) -> Wanted:
    """Return what a data set holds by the settings."""
    from knowme.learn.dataset import Wanted

    settings = home.settings.learn
    return Wanted(
        purpose,
        min_answer_chars=settings.min_answer_chars,
        system_prompt=settings.system_prompt,
        **more,
    )


# --- training -----------------------------------------------------------------------------------


def preset_of(home: Home, name: str = "") -> str:
    """Return the preset that is meant: by name, by the settings, or that of the primary model."""
    from knowme.learn import presets

    chosen = name or home.settings.learn.preset
    if chosen != "auto":
        return chosen
    return presets.of_model(home.models.state(home.models.primary).model)


def spec_of(home: Home, run: runs.Run, **over: Any) -> tuple[str, TrainSpec]:
    """Return the preset's name and what the trainer is told. Raises ConfigError, TrainError."""
    from knowme.learn import presets

    settings = home.settings.learn
    over.pop("trainer", None)
    preset = preset_of(home, over.pop("preset", ""))
    base = over.pop("base", "") or settings.base
    over.setdefault("threads", settings.threads)
    return preset, presets.spec(preset, run.path, base, **over)


def estimate(home: Home, run: runs.Run, **over: Any) -> dict[str, Any]:
    """Return what training a run would take; nothing is trained."""
    from knowme.learn import presets

    _rejected(run, over)
    preset, spec = spec_of(home, run, **over)
    guess = _guess(run, spec)
    try:
        presets.refuse(guess, run.path)
        refused = ""
    except TrainError as error:
        refused = str(error)
    return {
        **asdict(guess),
        "refused": refused,
        "run": run.id,
        "preset": preset,
        "base": _named(spec.base),
        "examples": run.needs("data")["counts"]["train"],
        "trainer": str(over.get("trainer") or home.settings.learn.trainer),
    }


def _rejected(run: runs.Run, over: Mapping[str, Any]) -> None:
    """Raise InputError where answers are to be rejected, and none was."""
    if over.get("method") == "dpo" and not run.needs("data")["counts"].get("rejected"):
        raise InputError(
            f"Run {run.id} has no answers that you disliked, which dpo learns from.",
            "Rate some (knowme rate last 1), then: knowme learn dataset",
        )


def _guess(run: runs.Run, spec: TrainSpec) -> Estimate:
    from knowme.learn import presets

    run.needs("data")
    return presets.memory(spec)


def train(
    home: Home, run: runs.Run, report: Report | None = None, **over: Any
) -> Mapping[str, Any]:
    """Train an adapter, or go on where it was stopped; returns what the stage says.

    Raises TrainError: it will not fit, the packages are not there, it failed. HomeError: another
    process trains it.
    """
    from knowme.learn import notebook, presets

    _fresh(run)
    _rejected(run, over)
    preset, spec = spec_of(home, run, **over)
    if not run.needs("data")["counts"]["train"]:
        raise InputError(f"Run {run.id} has nothing to train on.", "Run: knowme learn dataset")
    presets.refuse(_guess(run, spec), run.path)
    trainer = trainer_of(home, spec, str(over.get("trainer") or ""))
    with Lock(run.path / "train.lock"):  # the daemon may go on with what a terminal began
        trainer.train(spec, report or (lambda event: None))
    run.done("train", preset=preset, **notebook.outcome(run))
    return run.needs("train")


def trainer_of(home: Home, spec: TrainSpec, name: str = "") -> Trainer:
    """Return the trainer that the settings mean. Raises TrainError where it cannot work here."""
    chosen = name or home.settings.learn.trainer
    tried = []
    for each in ("unsloth", "peft") if chosen == "auto" else (chosen,):
        trainer: Trainer = plugins.find("trainers", each)()
        why = trainer.missing(spec)
        if not why:
            return trainer
        tried.append(why)
    raise TrainError(tried[-1])


def packages() -> None:
    """Raise TrainError where what training needs is not installed: before a data set is made."""
    if not (find_spec("torch") and find_spec("peft")):
        raise TrainError("Training needs more packages, and they are large.", f"Run: {EXTRA}")


def _fresh(run: runs.Run) -> None:
    if run.stale:
        raise InputError(f"Run {run.id} is stale: {run.stale}.", "Run: knowme learn dataset")


def _named(base: str) -> str:
    return Path(base).stem if "/" in base and Path(base).exists() else base or "the packaged model"


# --- export -------------------------------------------------------------------------------------


def export(
    home: Home,
    run: runs.Run,
    tell: Tell | None = None,
    *,
    kinds: Sequence[str] = ("adapter",),
    ollama: str = "",
    check: bool = True,
) -> Mapping[str, Any]:
    """Write GGUF files of a run's adapter, with a Modelfile; returns what the stage says."""
    from knowme.learn import dataset, fidelity
    from knowme.learn import export as exporting

    _fresh(run)
    run.needs("train")
    say = tell or (lambda done, total, what: None)
    base = exporting.base_gguf(run)
    before, measured = run.stage("export") or {}, run.stage("measure")
    files: dict[str, Any] = dict(before.get("files", {}))
    for kind in kinds:
        say(0, 0, f"writing {kind}")
        path = exporting.adapter(run) if kind == "adapter" else exporting.merged(run, kind)
        made: dict[str, Any] = {
            "file": str(path.relative_to(run.path)),
            "bytes": path.stat().st_size,
            "sha256": adoptions.file_sha256(path),
        }
        if check:
            say(0, 0, f"comparing {kind} with the original")
            found = dataset.read(run, "validation") or dataset.read(run, "test")
            checked = fidelity.check(run, found, kind)
            made["fidelity"] = asdict(checked) | {"perplexity_ratio": checked.perplexity_ratio}
        files[kind] = made
    exporting.write_modelfile(run, system=home.settings.learn.system_prompt)
    served_as = str(before.get("served_as", ""))
    if ollama:
        say(0, 0, f"making {ollama} in Ollama")
        served_as = exporting.ollama_create(home, run, ollama)
    run.done(
        "export",
        files=files,
        base=adoptions.base_of(base),
        served_as=served_as,
    )
    same = files.get("adapter", {}).get("sha256"), adoptions.base_of(base)
    if measured and (measured.get("sha256"), measured.get("base")) == same:
        # The same adapter again, or another form of it: what was measured of it holds.
        manifest = run.manifest
        stages = {**manifest["stages"], "measure": measured}
        runs.put(run.path / runs.MANIFEST, {**manifest, "stages": stages})
    return run.needs("export")


# --- the gate -----------------------------------------------------------------------------------


def measure(home: Home, run: runs.Run, tell: Tell | None = None, **limits: Any) -> dict[str, Any]:
    """Measure a run's adapter against what is in use, and say what the gate says.

    ``limits`` (most, questions, neutral) make it shorter: see measure.run.
    """
    from knowme.learn import export as exporting
    from knowme.learn import measure as measuring

    _fresh(run)
    exported = run.needs("export")
    if "adapter" not in exported["files"]:
        raise InputError(f"Run {run.id} has no adapter as GGUF.", "Run: knowme learn export")
    measuring.run(
        home,
        run,
        base=exporting.base_gguf(run),
        threads=home.settings.engine.threads,
        tell=tell,
        **limits,
    )
    return verdict(run)


def verdict(run: runs.Run) -> dict[str, Any]:
    """Return the gate's table of a run that was measured. Raises InputError where it was not."""
    from knowme.learn import adopt as gate

    run.needs("measure")
    measured = gate.measured_of(run)
    alone = [
        sum(getattr(each, side) for each in measured.alone) / max(1, len(measured.alone))
        for side in ("before", "after")
    ]
    return {
        "run": run.id,
        **gate.told(gate.decide(measured)),
        "against": measured.against or "the model as it came",
        "facts_alone": [round(each, 4) for each in alone],
    }


def adopt(
    home: Home, run: runs.Run, tell: Tell | None = None, *, force: bool = False
) -> dict[str, Any]:
    """Put a run's adapter into use if the gate lets it through (or ``force``)."""
    _fresh(run)
    told = verdict(run) if run.stage("measure") else measure(home, run, tell)
    if not (told["adopt"] or force):
        return {**told, "adopted": False, "forced": False}
    return {**told, **use(home, run.id, force=force)}


def use(home: Home, name: str, *, force: bool = False) -> dict[str, Any]:
    """Put a run's adapter into use. Raises InputError where it is stale, changed or refused."""
    from knowme.learn import adopt as gate

    made = gate.adopt(home, runs.find(home.path, name), force=force)
    return {"adopted": True, "forced": made.forced}


def rollback(home: Home, purpose: str) -> dict[str, str]:
    """Take out what is in use for a purpose. Raises NotFoundError where nothing is.

    ``stale`` says what is wrong with what is in use then; "" nothing.
    """
    out, now = home.db.write(lambda conn: adoptions.roll_back(conn, purpose, now_ms()))
    return {
        "out": out.run,
        "in_use": "" if now is None else now.run,
        "stale": "" if now is None else _wrong(home, now),
    }


def _wrong(home: Home, used: adoptions.Adoption) -> str:
    """Return what is wrong with an adapter that is in use, or ""."""
    run = runs.Run(used.run, home.path / runs.FOLDER / used.run)
    if not run.path.is_dir():
        return "its folder is gone"
    if adoptions.file_sha256(home.path / used.adapter) != used.sha256:
        return "its file is gone or was changed, and it is not used"
    return run.stale


def delete(home: Home, name: str) -> dict[str, Any]:
    """Delete a run: its examples, its checkpoints, its adapter. One in use is taken out first."""
    found = runs.find(home.path, name)
    with home.db.read() as conn:
        used = [each for each in adoptions.listed(conn, current=True) if each.run == found.id]
    for each in used:
        rollback(home, each.purpose)
    with Lock(found.path / "train.lock"):  # nobody trains it now
        shutil.rmtree(found.path)
    return {"run": found.id, "was_in_use": bool(used)}


# --- all of it ----------------------------------------------------------------------------------


def run(
    home: Home,
    purpose: str,
    tell: Tell | None = None,
    report: Report | None = None,
    *,
    resume: bool = False,
    **over: Any,
) -> dict[str, Any]:
    """Do every stage that is not done yet, and return what the gate says. Nothing is adopted."""
    from knowme.learn import dataset

    found = None
    if resume:
        found = runs.find(home.path, purpose=purpose)
        if found.stale or found.stage("data") is None:
            found = None
    if found is None or found.stage("train") is None:
        packages()
    if found is None:
        found = dataset.build(home, wanted(home, purpose), tell)
    if found.stage("train") is None:
        train(home, found, report, **over)
    if found.stage("export") is None:
        export(home, found, tell)
    if found.stage("measure") is None:
        return measure(home, found, tell)
    return verdict(found)


def export_notebook(
    home: Home, run: runs.Run, target: Path, *, form: str = "notebook", preset: str = ""
) -> Sequence[Path]:
    """Write a run so that another machine can train it. Raises InputError."""
    from knowme.learn import notebook

    _fresh(run)
    _, spec = spec_of(home, run, preset=preset)
    trainer = home.settings.learn.trainer
    return notebook.export(
        run,
        spec,
        target,
        form="script" if form == "script" else "notebook",
        trainer="unsloth" if trainer == "unsloth" else "peft",
    )


# --- how it stands ------------------------------------------------------------------------------


def status(home: Home) -> dict[str, Any]:
    """Return what is in use, every run, what is missing and what comes next, as JSON."""
    found = runs.listed(home.path)
    with home.db.read() as conn:
        used = adoptions.listed(conn, current=True)
    in_use = [
        {
            "run": each.run,
            "purpose": each.purpose,
            "at": (iso(each.at_ms) or "")[:10],
            "forced": each.forced,
            "served_as": each.served_as,
            "stale": _wrong(home, each),
        }
        for each in used
    ]
    told = [_run_told(each, {one.run for one in used}) for each in found]
    missing = "" if find_spec("peft") and find_spec("torch") else f"Training needs: {EXTRA}"
    return {"in_use": in_use, "runs": told, "missing": missing, "next": _next(told)}


def _run_told(run: runs.Run, used: set[str]) -> dict[str, Any]:
    stages = run.manifest["stages"]
    counts = stages.get("data", {}).get("counts", {})
    verdict_ = ""
    if "measure" in stages and not run.stale:
        verdict_ = "may be adopted" if _passes(run) else "refused by the gate"
    return {
        "id": run.id,
        "purpose": run.purpose,
        "made": run.manifest.get("made"),
        "examples": sum(counts.get(name, 0) for name in ("train", "validation", "test")),
        "stages": [name for name in runs.STAGES if name in stages],
        "verdict": "in use" if run.id in used else verdict_,
        "stale": run.stale,
    }


def _passes(run: runs.Run) -> bool:
    """Tell whether the gate as it is now lets a measured run through."""
    try:
        return bool(verdict(run)["adopt"])
    except (InputError, OSError):
        return bool((run.stage("measure") or {}).get("adopt"))


def _next(told: Sequence[Mapping[str, Any]]) -> str:
    if not told or told[0]["stale"]:
        return "Next: knowme learn dataset (or all at once: knowme learn run)"
    stages = told[0]["stages"]
    for stage, command in (("data", "dataset"), ("train", "train"), ("export", "export"),
                           ("measure", "measure")):  # fmt: skip
        if stage not in stages:
            return f"Next: knowme learn {command}"
    if told[0]["verdict"] == "refused by the gate":
        return "Why it was refused: knowme learn adopt (it shows the table, and uses nothing)"
    return "" if told[0]["verdict"] != "may be adopted" else "Next: knowme learn adopt"


# --- by itself ----------------------------------------------------------------------------------


def due(home: Home, at_ms: int | None = None) -> str:
    """Return "" when a new adapter is due, else why not.

    Due is one once there are ``learn.enough_pairs``, a month after the last run, or sooner after
    ``learn.new_pairs`` new ones. Only what is cheap is looked at first.
    """
    from knowme.learn import dataset

    settings, now = home.settings.learn, now_ms() if at_ms is None else at_ms
    if settings.every == "never":
        return "learn.every is never"
    if unfinished(home, settings.purpose) is not None:
        return ""
    if not (find_spec("torch") and find_spec("peft")):
        return f"training needs more packages: {EXTRA}"
    with home.db.read() as conn:
        answers = int(
            value(conn, "SELECT count(*) FROM messages WHERE role IN ('user', 'document')")
        )
    if answers < settings.enough_pairs // 4:
        return f"{answers} messages are too few for {settings.enough_pairs} examples"
    last = next((each for each in runs.listed(home.path) if each.stage("train")), None)
    waited = None if last is None else now - (parse_time(last.manifest["made"], last.id) or 0)
    since = None
    if last is not None and waited is not None and waited < MONTH_MS:
        since = int((last.stage("data") or {}).get("newest_ms") or 0)
        with home.db.read() as conn:
            new = int(value(conn, "SELECT count(*) FROM messages WHERE at_ms > ?", (since,)))
        if new < settings.new_pairs:
            return f"the last one is {waited // 86_400_000} days old, and {new} messages are new"
    got = dataset.gather(home, wanted(home, settings.purpose))
    if len(got.pairs) < settings.enough_pairs:
        return f"{len(got.pairs)} of {settings.enough_pairs} examples"
    new = 0 if since is None else sum((each.at_ms or 0) > since for each in got.pairs)
    if since is not None and new < settings.new_pairs:  # not every message makes an example
        return f"{new} of {settings.new_pairs} new examples"
    return ""


def unfinished(home: Home, purpose: str) -> runs.Run | None:
    """Return the newest run of a purpose if its training was begun and it is not measured yet."""
    found = [each for each in runs.listed(home.path) if each.purpose == purpose]
    if not found or found[0].stale or found[0].stage("measure") is not None:
        return None
    begun = (found[0].path / "spec.json").exists() and found[0].stage("data") is not None
    return found[0] if begun else None


def last_question_ms(home: Home) -> int | None:
    """Return when the last question was asked, or None."""
    with home.db.read() as conn:
        found = rows(conn, "SELECT max(asked_ms) FROM answers")
    return None if not found or found[0][0] is None else int(found[0][0])
