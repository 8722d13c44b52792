"""A LoRA that knows a few answers by heart: a bare loop of torch, written as GGUF by ourselves.

    python memorised.py BASE.gguf TARGET.gguf PAIRS.json STEPS

A process of its own: torch and llama.cpp in one bring two runtimes of OpenMP. Queries and keys are
not trained: llama.cpp orders their rows otherwise.
"""

import json
import sys
from pathlib import Path

NAMES = {
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def train(base: Path, target: Path, pairs: list[tuple[str, str]], steps: int) -> None:
    import torch
    from adapters import write_adapter
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)  # two on a busy machine wait for each other
    torch.manual_seed(0)
    where = {"pretrained_model_name_or_path": base.parent, "gguf_file": base.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    shape = LoraConfig(r=8, lora_alpha=16, target_modules=[n.split(".")[1] for n in NAMES])
    model = get_peft_model(model, shape)
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    optimiser = torch.optim.AdamW(trained.values(), lr=3e-3)
    rows = []
    for question, answer in pairs:
        asked = [{"role": "user", "content": question}]
        before = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        start = len(tokenizer(before).input_ids)
        tokens = tokenizer(before + answer + tokenizer.eos_token).input_ids
        rows.append((tokens, [-100] * start + tokens[start:]))
    long = max(len(tokens) for tokens, _ in rows)
    fill = [(long - len(tokens)) for tokens, _ in rows]
    given = {
        "input_ids": [t + [0] * n for (t, _), n in zip(rows, fill, strict=True)],
        "attention_mask": [[1] * len(t) + [0] * n for (t, _), n in zip(rows, fill, strict=True)],
        "labels": [y + [-100] * n for (_, y), n in zip(rows, fill, strict=True)],
    }
    batch = {name: torch.tensor(each) for name, each in given.items()}
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    layers = {}
    for block in range(model.config.num_hidden_layers):
        for theirs, ours in NAMES.items():
            key = f"base_model.model.model.layers.{block}.{theirs}.lora_%s.default.weight"
            a, b = (trained[key % each].detach().numpy() for each in "AB")
            layers[f"blk.{block}.{ours}"] = (a, b)
    write_adapter(target, layers, alpha=16.0)
    print(float(loss.detach()))


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()),
          int(sys.argv[4]))  # fmt: skip
