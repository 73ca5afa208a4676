"""Peer: a transformers model under FSDP2 with fp32 master weights, bf16 compute and fused AdamW; eager, or each layer through torch.compile.

torchrun --nproc-per-node N bench/peers/hf_fsdp2.py --config CONFIG.json [--seq 4096] [--micro-batch 4] [--steps 12] [--compile]
                               [--experts eager|grouped_mm] [--document TOKENS]
Prints one JSON line: tokens/s per GPU (median of the last two thirds of the steps), step time, peak memory of the caching allocator.
"""
import argparse
import json
import os
import statistics
import time


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--seq", type=int, default=4096)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--experts", default="grouped_mm")    # of a mixture of experts: transformers' way of computing them
    parser.add_argument("--document", type=int, default=0)    # rows are packed with documents of as many tokens, which transformers sees by positions
    arguments = parser.parse_args()

    import torch
    import torch.distributed as dist
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl")
    fields = json.load(open(arguments.config))
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    if getattr(config, "num_experts", 0) or getattr(config, "num_local_experts", 0):
        model.set_experts_implementation(arguments.experts)
    model.config.use_cache = False
    model.train()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for layer in model.model.layers:
        if arguments.compile:
            layer.compile()
        fully_shard(layer, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    rows = (arguments.micro_batch, arguments.seq)
    packed = {"position_ids": torch.arange(arguments.seq, device="cuda").remainder(arguments.document).expand(rows)} if arguments.document else {}
    seconds, losses = [], []
    for _ in range(arguments.steps):
        ids = torch.randint(0, config.vocab_size, rows, device="cuda")
        torch.cuda.synchronize()
        begin = time.perf_counter()
        loss = model(input_ids=ids, labels=ids, **packed).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
        losses.append(loss.item())
    median = statistics.median(seconds[arguments.steps // 3:])
    if dist.get_rank() == 0:
        print(json.dumps({"name": "HF + FSDP2" + (" + compile" if arguments.compile else "") +
                          (", eager experts" if arguments.experts == "eager" else ""), "step_ms": round(median * 1e3, 1),
                          "tokens_per_s": round(arguments.micro_batch * arguments.seq / median),
                          "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2), "first_loss": round(losses[0], 4)}), flush=True)
    dist.destroy_process_group()


main()
