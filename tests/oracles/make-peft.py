# A golden PEFT adapter on a tiny random Llama, with ranks and alphas per module and rsLoRA.
#   pip install peft transformers torch && python tests/oracles/make-peft.py
# Writes golden/peft/adapter_model.safetensors and adapter_config.json as PEFT does, and golden/peft/base.safetensors:
# the base model's weights, ids, and the logits without and with the adapter; config and scales are in its metadata.
import json
import pathlib

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

here = pathlib.Path(__file__).parent / "golden" / "peft"
torch.manual_seed(5)
config = LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
    max_position_embeddings=64, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
model = LlamaForCausalLM(config).eval()
for parameter in model.parameters():
    parameter.data.normal_(std=0.3)
ids = torch.randint(0, 32, (2, 9))
weights = {f"weight/{key}": value.clone() for key, value in model.state_dict().items() if key != "lm_head.weight"}
with torch.no_grad():
    base = model(ids).logits
adapted = get_peft_model(model, LoraConfig(
    r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "down_proj"], use_rslora=True, task_type="CAUSAL_LM",
    rank_pattern={r"model\.layers\.1\.self_attn\.q_proj": 2, "mlp.down_proj": 3},
    alpha_pattern={r"layers\.0\..*k_proj": 5},
)).eval()
scales = {}
for name, module in adapted.named_modules():
    if name.endswith("lora_B.default"):
        module.weight.data.normal_(std=0.3)
    if isinstance(getattr(module, "scaling", None), dict):
        scales[name.removeprefix("base_model.model.")] = module.scaling["default"]
with torch.no_grad():
    logits = adapted(ids).logits
adapted.save_pretrained(here)
(here / "README.md").unlink(missing_ok=True)
save_file(
    weights | {"ids": ids.int(), "logits/base": base.contiguous(), "logits/adapted": logits.contiguous()},
    here / "base.safetensors",
    {"config": json.dumps(config.to_dict()), "scales": json.dumps(scales)},
)
