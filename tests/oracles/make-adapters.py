# Golden adapters on the tiny models of golden/families: made by PEFT for Nexus, and made by Nexus for PEFT and llama.cpp.
#   (cd tests/oracles/packages && npm ci --ignore-scripts); python tests/oracles/make-family-logits.py
#   pip install peft transformers torch safetensors gguf && python tests/oracles/make-adapters.py
# Writes golden/adapters/<name>-peft/, as PEFT saves it; <name>-native/ and -uniform/ and <name>.gguf, as Nexus writes them;
# and <name>.safetensors: the logits that PEFT gives with each of the first three. llama.cpp must give those of the last.
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
from llama_cpp import LlamaCpp, write_exact
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

here = pathlib.Path(__file__).parent
golden = here / "golden/adapters"
golden.mkdir(exist_ok=True)
names = ["llama3", "qwen2", "gemma3"]
subprocess.run([here.parents[1] / "node_modules/.bin/node", "write-adapters.ts", *names], cwd=here, check=True)


def base(name):
    """A golden tiny model in f32, and its ids."""
    with safe_open(here / f"golden/families/{name}.safetensors", "pt") as file:
        settings = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings)).eval()
    ids, logits = tensors.pop("ids").long(), tensors.pop("logits")
    model.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=False)
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, logits, atol=1e-5 * logits.abs().max())
    return model, ids


def logits_of(model, ids):
    with torch.no_grad():
        return model(ids).logits.contiguous()


for seed, name in enumerate(names):
    torch.manual_seed(seed)
    model, ids = base(name)
    adapted = get_peft_model(model, LoraConfig(
        r=4, lora_alpha=6, target_modules=["q_proj", "k_proj", "o_proj", "down_proj", "gate_proj"], task_type="CAUSAL_LM",
        use_rslora=name == "qwen2", rank_pattern={r"layers\.1\.self_attn\.q_proj": 2, "down_proj": 3},
        alpha_pattern={r"layers\.0\..*k_proj": 5, "gate_proj": 2},
    )).eval()
    for key, parameter in adapted.named_parameters():
        if "lora_" in key:
            parameter.data.normal_(std=0.3)
    logits = {"peft": logits_of(adapted, ids)}
    adapted.save_pretrained(golden / f"{name}-peft")
    (golden / f"{name}-peft/README.md").unlink(missing_ok=True)
    for ranks in ["native", "uniform"]:
        model, ids = base(name)
        logits[ranks] = logits_of(PeftModel.from_pretrained(model, golden / f"{name}-{ranks}").eval(), ids)
    plain = logits_of(base(name)[0], ids)
    scale = plain.abs().max().item()
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        write_exact(here / f"golden/families/{name}.gguf", file.name)
        theirs = LlamaCpp(file.name).logits(ids[0].tolist(), lora=golden / f"{name}.gguf", exact=True)[None]
    figures = {
        "changes": (logits["native"] - plain).abs().max().item() / scale,
        "uniform": (logits["native"] - logits["uniform"]).abs().max().item() / scale,
        "llama.cpp": np.abs(theirs - logits["native"].numpy()).max() / scale,
    }
    print(name, {key: f"{value:.1e}" for key, value in figures.items()})
    assert figures["changes"] > 0.1 and figures["uniform"] < 1e-5
    assert figures["llama.cpp"] < (1e-3 if name == "gemma3" else 1e-4)
    save_file({key: value for key, value in logits.items()}, golden / f"{name}.safetensors")
