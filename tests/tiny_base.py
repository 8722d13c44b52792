"""A base for tests of training: two random layers with the packaged model's real tokenizer."""

import json
import shutil
from pathlib import Path

import pytest

_made: dict[str, Path] = {}

ROWS = [
    [("user", "What is my cat called?"), ("assistant", "Your cat is called Quillfeather.")],
    [("user", "Which tea?"), ("assistant", "Rooibos, never green.")],
    [
        ("system", "Be brief."),
        ("user", "Where do I work?"),
        ("assistant", "At the harbour library."),
    ],
    [
        ("user", "Tabs or spaces?"),
        ("assistant", "Spaces."),
        ("user", "How many?"),
        ("assistant", "Two, in every file."),
    ],
    [
        ("user", "Train or plane?"),
        ("assistant", "<think>\nThe train leaves at nine and I can read.\n</think>\n\nThe train."),
    ],
    [("user", "Who is Zoltan?"), ("assistant", "Your neighbour, who plays the cello.")],
]
WORDS = ("Quillfeather", "Rooibos", "harbour", "Zoltan", "cello")


def messages(row):
    return [{"role": role, "content": text} for role, text in row]


def packaged(models) -> Path:
    """Return the packaged chat model as a Hugging Face folder, made once a machine."""
    from knowme.learn import presets

    for name in ("torch", "transformers", "peft", "trl"):
        pytest.importorskip(name, reason=f"needs {name}: pip install 'knowme[train]'")
    return presets.base_folder(str(models["chat"]))


def tiny(models, tmp_path_factory) -> Path:
    """Return the folder of the tiny base."""
    if "tiny" not in _made:
        real = packaged(models)
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        folder = tmp_path_factory.mktemp("tiny") / "base"
        torch.manual_seed(7)
        config = LlamaConfig(
            vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
            initializer_range=0.2,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(real / name, folder / name)
        _made["tiny"] = folder
    return _made["tiny"]


def filled(folder: Path, rows=None, validation=None) -> Path:
    """Write a run's data and return its folder."""
    (folder / "data").mkdir(parents=True)
    sides = {"train": ROWS if rows is None else rows, "validation": validation or ROWS[:2]}
    for name, side in sides.items():
        told = [row if isinstance(row, dict) else {"messages": messages(row)} for row in side]
        text = "".join(json.dumps(row) + "\n" for row in told)
        (folder / "data" / f"{name}.jsonl").write_text(text, "utf-8")
    return folder


def answers(base: Path, rows, adapter: Path | None = None, whole=False) -> list[float]:
    """Return the mean nll of each row's last answer, in nats a token, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    found = []
    for row in rows:
        said = messages(row)
        prompt = tokenizer.apply_chat_template(
            said[:-1], add_generation_prompt=True, tokenize=False
        )
        full = tokenizer.apply_chat_template(said, tokenize=False).removesuffix("\n")
        before = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        ids = torch.tensor([tokenizer(full, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            scores = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), -1)
        nll = -scores.gather(1, ids[0, 1:, None])[:, 0]
        found.append(float(nll.mean() if whole else nll[before - 1 :].mean()))
    return found
