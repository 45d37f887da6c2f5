# Golden NF4 by bitsandbytes on the CPU, both ways.
#   pip install bitsandbytes torch transformers accelerate safetensors && python tests/oracles/make-nf4.py
# Writes golden/nf4.safetensors: for each source dtype `source`, `codes`, `absmax`, and with nested scales `nested.codes`,
# `nested.absmax`, `nested.offset`. And golden/bitsandbytes-models.json with golden/bitsandbytes-model.safetensors: a tiny
# model (bitsandbytes-dense.*) that transformers quantised and saved, and for it and for those that Nexus writes (write-quantized.ts) the hashes of
# the file and of every weight that bitsandbytes makes of it in f32, and the logits in f32.
import hashlib
import json
import pathlib
import shutil
import subprocess
import tempfile

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

here = pathlib.Path(__file__).parent
golden = here / "golden"
torch.manual_seed(17)
tensors = {}
for name, dtype in {"f16": torch.float16, "bf16": torch.bfloat16}.items():
    rows = torch.randn(300, 64) * torch.logspace(-6, 3, 300)[:, None].clamp(max=600)
    rows[7] = 0
    rows[8, 1:] = 0
    rows[9] = rows[9, 0].abs()
    rows[10] = torch.linspace(-1, 1, 64)
    source = rows.reshape(150, 128).to(dtype)
    packed, state = quantize_4bit(source, blocksize=64, quant_type="nf4")
    nested, outer = quantize_4bit(source, blocksize=64, quant_type="nf4", compress_statistics=True)
    assert torch.equal(packed, nested)
    tensors |= {
        f"{name}.source": source, f"{name}.codes": packed.flatten(), f"{name}.absmax": state.absmax,
        f"{name}.nested.codes": outer.absmax, f"{name}.nested.absmax": outer.state2.absmax, f"{name}.nested.offset": outer.offset.reshape(1).float(),
    }
save_file(tensors, golden / "nf4.safetensors")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def facts(folder):
    """What transformers and bitsandbytes make of a folder."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu").eval()
    weights = {}
    for key, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weights[f"{key}.weight"] = dequantize_4bit(module.weight.data, module.weight.quant_state)
            assert weights[f"{key}.weight"].dtype == torch.float32, weights[f"{key}.weight"].dtype
        elif isinstance(module, bnb.nn.Linear8bitLt):
            weights[f"{key}.weight"] = module.weight.CB.float() * module.weight.SCB.view(-1, 1) / 127
    assert len(weights) == 7, len(weights)
    # bitsandbytes multiplies in bf16 on the CPU, and rounds activations to 8 bits for int8: plain layers do it in f32.
    for key, value in weights.items():
        plain = torch.nn.Linear(value.shape[1], value.shape[0], bias=False)
        plain.weight.data = value
        model.set_submodule(key.removesuffix(".weight"), plain)
    with torch.no_grad():
        logits = model(ids).logits[0]
    return dict(
        file=sha256((folder / "model.safetensors").read_bytes()),
        weights={key: sha256(value.contiguous().numpy().tobytes()) for key, value in weights.items()},
        logits=[round(value, 5) for value in logits[-1].tolist()],
    )


config = LlamaConfig(
    vocab_size=40, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
    head_dim=16, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, rms_norm_eps=1e-5,
)
ids = torch.arange(3, 20)[None]
result = {}
with tempfile.TemporaryDirectory() as work:
    work = pathlib.Path(work)
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        parameter.data.copy_((torch.randn_like(parameter) * 0.2 + (parameter.dim() == 1)).bfloat16())
    model.bfloat16().save_pretrained(work / "dense")
    for kind in ["nf4", "nf4-double", "int8"]:
        subprocess.run([here.parents[1] / "node_modules/.bin/node", "write-quantized.ts", work / "dense", work / kind, kind], cwd=here, check=True)
        result[kind] = facts(work / kind)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(work / "dense", quantization_config=config, dtype=torch.float32, device_map="cpu")
    theirs.save_pretrained(work / "theirs")
    result["transformers"] = facts(work / "theirs") | dict(config=json.loads((work / "theirs/config.json").read_text()))
    shutil.copy(work / "dense/model.safetensors", golden / "bitsandbytes-dense.safetensors")
    shutil.copy(work / "dense/config.json", golden / "bitsandbytes-dense.json")
    shutil.copy(work / "theirs/model.safetensors", golden / "bitsandbytes-model.safetensors")
(golden / "bitsandbytes-models.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")
