# Golden logits of a tiny random model of each family, by transformers in f32; and the model as its folder and as the GGUF
# file that llama.cpp's converter would make of it, which llama.cpp itself must load and give the same logits for.
#   (cd tests/oracles/packages && npm ci --ignore-scripts)
#   pip install torch transformers safetensors gguf numpy && python tests/oracles/make-family-logits.py
# Writes golden/families/<name>.safetensors: weights in the dtype of the case, `ids` i32 (1, T), `logits` f32 (1, T, V), and
# config.json in the metadata; and <name>.gguf, where GGUF can say what the model is. Weights are exact in bf16 and f16.
import json
import pathlib
import tempfile

import gguf
import numpy as np
import torch
from llama_cpp import LlamaCpp
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

here = pathlib.Path(__file__).parent / "golden" / "families"
here.mkdir(exist_ok=True)
tokens = 40
sizes = dict(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    head_dim=8, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, rms_norm_eps=1e-5,
    attn_implementation="eager", rope_theta=500.0,
)
llama3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32, rope_theta=500.0)
yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=500.0)
linear = dict(rope_type="linear", factor=4.0, rope_theta=500.0)
# By name: model_type, what differs from `sizes`, dtype of the folder, GGUF architecture.
cases = {
    "llama2": ("llama", dict(num_key_value_heads=4), "F16", "llama"),
    "llama3": ("llama", dict(tie_word_embeddings=True, rope_parameters=llama3), "BF16", "llama"),
    "llama-linear": ("llama", dict(rope_parameters=linear), "F32", "llama"),
    "llama-yarn": ("llama", dict(rope_parameters=yarn), "F32", "llama"),
    "mistral": ("mistral", dict(sliding_window=8), "BF16", None),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True), "F16", "qwen2"),
    "qwen2-sliding": ("qwen2", dict(use_sliding_window=True, sliding_window=8, max_window_layers=1), "F16", None),
    "qwen3": ("qwen3", dict(), "BF16", "qwen3"),
    "gemma3": ("gemma3_text", dict(num_hidden_layers=6, sliding_window=8, query_pre_attn_scalar=8, tie_word_embeddings=True), "BF16", "gemma3"),
    "phi3": ("phi3", dict(sliding_window=64, original_max_position_embeddings=64), "F16", "phi3"),
    "phi3-sliding": ("phi3", dict(sliding_window=8), "F16", None),
}
dtypes = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


def write_gguf(path, arch, config, weights, kind):
    """What convert_hf_to_gguf.py writes of these architectures."""
    out = gguf.GGUFWriter(path, arch)
    out.add_block_count(config.num_hidden_layers)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    out.add_key_length(size)
    out.add_value_length(size)
    out.add_rope_dimension_count(size)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    out.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        out.add_rope_scaling_type(getattr(gguf.RopeScalingType, rope["rope_type"].upper()))
        out.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        out.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if arch in ("gemma3", "phi3"):
        out.add_sliding_window(config.sliding_window)
    out.add_vocab_size(config.vocab_size)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list([chr(0x100 + i) if i < 3 else chr(33 + i) for i in range(config.vocab_size - 1)] + ["$%"])
    out.add_token_types([3 if i < 3 else 1 for i in range(config.vocab_size)])
    out.add_token_merges(["$ %"])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    if rope["rope_type"] == "llama3":
        base = 1 / rope["rope_theta"] ** (torch.arange(0, size, 2).float() / size)
        wavelength = 2 * torch.pi / base
        low, high, old = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
        smooth = (old / wavelength - low) / (high - low)
        factors = torch.where(wavelength < old / high, 1.0, torch.where(wavelength > old / low, rope["factor"], 1 / ((1 - smooth) / rope["factor"] + smooth)))
        out.add_tensor("rope_freqs.weight", factors.numpy().astype(np.float32))
    names = gguf.get_tensor_name_map({v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[arch], config.num_hidden_layers)
    for key, value in weights.items():
        heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
        if arch == "llama" and ("q_proj" in key or "k_proj" in key):
            value = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
        if arch == "gemma3" and key.endswith("norm.weight"):
            value = value + 1
        dtype = {"F32": None, "F16": np.float16, "BF16": "BF16"}[kind if value.dim() == 2 else "F32"]
        data = value.numpy()
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if dtype == "BF16":
            out.add_tensor(name, gguf.quants.quantize(data, gguf.GGMLQuantizationType.BF16), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            out.add_tensor(name, data.astype(dtype or np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


for name, (kind, extra, dtype, arch) in cases.items():
    torch.manual_seed(len(name) * 31 + 7)
    options = {**sizes, **extra}
    if "rope_parameters" in options:
        options.pop("rope_theta")
    if kind in ("phi3", "qwen2"):
        options.pop("head_dim")
        options["hidden_size"] = 32
    config = AutoConfig.for_model(kind, **options)
    model = AutoModelForCausalLM.from_config(config).eval()
    for key, parameter in model.named_parameters():
        norm = parameter.dim() == 1 and "bias" not in key
        value = torch.randn_like(parameter) * (0.15 if norm else 0.4) + (1 if norm and kind != "gemma3_text" else 0)
        value = value.bfloat16().float()
        parameter.data.copy_(torch.where(value.abs() < 1e-3, 0, value))
    ids = torch.randint(3, config.vocab_size, (1, tokens))
    with torch.no_grad():
        logits = model(ids).logits
    weights = {key: value.clone() for key, value in model.state_dict().items() if not (key == "lm_head.weight" and config.tie_word_embeddings)}
    stored = {key: value.to(dtypes[dtype]) for key, value in weights.items()}
    assert all(torch.equal(stored[key].float(), value) for key, value in weights.items())
    save_file(stored | {"ids": ids.int(), "logits": logits.contiguous()}, here / f"{name}.safetensors", {"config": json.dumps(config.to_dict())})
    if arch is None:
        continue
    with tempfile.TemporaryDirectory() as folder:
        write_gguf(f"{folder}/exact.gguf", arch, config, weights, "F32")
        theirs = LlamaCpp(f"{folder}/exact.gguf").logits(ids[0].tolist(), exact=True)
    error = np.abs(theirs - logits[0].numpy()).max() / logits.abs().max().item()
    print(f"{name}: llama.cpp differs by {error:.1e} of the largest logit")
    assert error < (1e-3 if arch == "gemma3" else 1e-4), name  # its GELU is a table in f16
    write_gguf(here / f"{name}.gguf", arch, config, weights, "F16" if dtype == "F32" else dtype)
