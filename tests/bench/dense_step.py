"""The dense proxy's training step against the same step in PyTorch eager, taking turns on one CPU thread.

    dense_step.py BENCH_PROGRAM [REPEATS [STEPS]]

d=128 L=4 T=128 B=8 V=256, float32. Eager has what a careful user gives it: fused qkv and gate/up products,
scaled_dot_product_attention, rms_norm, AdamW(fused=True), no .item() in the step.
"""

import os
import statistics
import subprocess
import sys
import time

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import torch
import torch.nn.functional as F
from torch import nn

D, L, T, B, V, HEAD = 128, 4, 128, 8, 256, 32


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.RMSNorm(D, eps=1e-6)
        self.qkv = nn.Linear(D, 3 * D, bias=False)
        self.out = nn.Linear(D, D, bias=False)
        self.norm2 = nn.RMSNorm(D, eps=1e-6)
        self.gate_up = nn.Linear(D, 2 * D, bias=False)
        self.down = nn.Linear(D, D, bias=False)

    def forward(self, x, cos, sin):
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, D // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, D))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Eager(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(V, D)
        self.blocks = nn.ModuleList(Block() for _ in range(L))
        self.norm = nn.RMSNorm(D, eps=1e-6)
        self.head = nn.Linear(D, V, bias=False)
        angle = torch.outer(torch.arange(T), 10000.0 ** (-torch.arange(0, HEAD, 2) / HEAD))
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, tokens):
        x = self.embedding(tokens[:, :-1])
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).view(-1, V), tokens[:, 1:].reshape(-1))


def timed(run):
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def eager_steps():
    torch.manual_seed(1)
    model = Eager()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.randint(V, (B, T + 1))

    def run(steps):
        for _ in range(steps):
            model(tokens).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return lambda steps: timed(lambda: run(steps))


def ours_steps(program):
    process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(steps):
        process.stdin.write(f"{steps}\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            sys.exit(f"{program} ended early")
        return tuple(float(word) for word in line.split()[:2])

    return run


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    torch.set_num_threads(1)
    ours, eager = ours_steps(sys.argv[1]), eager_steps()
    ours(5), eager(5)
    rows = [(ours(steps), eager(steps)) for _ in range(repeats)]  # A, B, A, B, ...
    print(f"d={D} L={L} T={T} B={B} V={V}, one thread, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    for index, what in ((0, "wall"), (1, "CPU")):
        a = [row[0][index] / steps * 1e3 for row in rows]
        b = [row[1][index] / steps * 1e3 for row in rows]
        ratio = [x / y for x, y in zip(a, b)]
        print(
            f"{what:>4}: tuneonce {statistics.median(a):.1f} ms a step, eager {statistics.median(b):.1f}; "
            f"ratio median {statistics.median(ratio):.3f}, min {min(ratio):.3f}, max {max(ratio):.3f} "
            f"of {repeats} x {steps} steps"
        )


main()
