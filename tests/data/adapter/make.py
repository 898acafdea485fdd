#!/usr/bin/env python3
"""Makes this folder's adapter and what PEFT computes with it: `pip install torch transformers peft`, then run this file.

The model is `tests/data/golden/llama` without its latent attention; everything is computed in float64.
"""
import json, pathlib
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
torch.manual_seed(7)
model = AutoModelForCausalLM.from_pretrained(HERE / "../golden/llama", torch_dtype=torch.float64, attn_implementation="eager")
config = LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=True, task_type="CAUSAL_LM")
model = get_peft_model(model, config).eval()
for name, parameter in model.named_parameters():
    if "lora_" in name:
        # Values that float32 holds exactly, so that rounding the file changes nothing.
        parameter.data = (torch.randn_like(parameter) * 0.1).float().double()
tokens = torch.randint(0, model.config.vocab_size, (2, 9))
logits = model(tokens).logits
loss = torch.nn.functional.cross_entropy(logits[:, -4:-1].flatten(0, 1), tokens[:, -3:].flatten(), reduction="mean")
loss.backward()
gradients = {
    name.removeprefix("base_model.model.").replace(".default.", "."): parameter.grad.flatten().tolist()
    for name, parameter in model.named_parameters()
    if parameter.requires_grad
}
expected = {
    "tokens": tokens.tolist(),
    "last_logits": logits[:, -1].tolist(),
    # Prompts are the first six tokens, targets the last three.
    "loss": loss.item(),
    "gradients": gradients,
}
for parameter in model.parameters():
    parameter.data = parameter.data.float()
model.peft_config["default"].base_model_name_or_path = "../golden/llama"
model.save_pretrained(HERE)
(HERE / "README.md").unlink(missing_ok=True)
(HERE / "expected.json").write_text(json.dumps(expected))
