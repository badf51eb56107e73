"""A plain PyTorch trainer of small byte-level language models, dense and MoE, that tuneonce tunes and transfers."""
import argparse
import os
import pathlib

import torch
import torch.nn as nn
import torch.nn.functional as F

import tuneonce_groups

# Tensor group -> its parameters. A dense model has ffn_up and ffn_down, a MoE has the router and the experts.
GROUPS = {"embedding": r"^(tokens|positions)$", "attention": r"(qkv|out)$", "norm": r"^blocks.*gain$",
          "ffn_up": r"ffn\.up$", "ffn_down": r"ffn\.down$", "router": r"router$", "expert_up": r"experts\.up$",
          "expert_down": r"experts\.down$", "shared_up": r"shared\.up$", "shared_down": r"shared\.down$",
          "final_norm": r"^norm\.gain$", "head": r"^head$"}


def tensor(*size):
    return nn.Parameter(torch.empty(*size))  # tuneonce_groups.initialise fills it


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gain = tensor(width)

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gain


class FeedForward(nn.Module):
    """`number` SwiGLU networks side by side: [..., width] -> [number, ..., width]."""
    def __init__(self, number, width, hidden):
        super().__init__()
        self.up, self.down = tensor(number, width, 2 * hidden), tensor(number, hidden, width)

    def forward(self, x):
        gate, up = torch.einsum("...d,ndh->n...h", x, self.up).chunk(2, -1)
        return torch.einsum("n...h,nhd->n...d", F.silu(gate) * up, self.down)


class Moe(nn.Module):
    """Every expert sees every token, with weight 0 where it was not chosen: simple, and fast enough at this size."""
    def __init__(self, shape, route_scale):
        super().__init__()
        self.active, self.route_scale = shape["num_active"], route_scale
        self.router = tensor(shape["width"], shape["num_experts"])
        self.experts = FeedForward(shape["num_experts"], shape["width"], shape["expert_width"])
        number = shape["num_shared"]
        self.shared = FeedForward(number, shape["width"], shape["expert_width"]) if number else None
        self.register_buffer("bias", torch.zeros(shape["num_experts"]))  # balances the load, weighs nothing

    def forward(self, x):
        gates = torch.sigmoid(x @ self.router)
        chosen = F.one_hot((gates + self.bias).topk(self.active, -1).indices, gates.shape[-1]).sum(-2)
        if self.training:
            load = chosen.float().flatten(0, -2).mean(0)
            self.bias += 1e-3 * torch.sign(load.mean() - load)
        gates = gates * chosen / (gates * chosen).sum(-1, keepdim=True)
        y = self.route_scale * torch.einsum("...n,n...d->...d", gates, self.experts(x))
        return y if self.shared is None else y + self.shared(x).sum(0)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        shape, groups = config["shape"], config["groups"]
        width, self.heads, is_moe = shape["width"], shape["num_heads"], shape["num_experts"] > 0
        self.attention_scale = groups["attention"]["forward"]
        self.ffn_scale = groups["expert_down" if is_moe else "ffn_down"]["forward"]
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.qkv, self.out = tensor(width, 3 * width), tensor(width, width)
        self.ffn = Moe(shape, config["route_scale"]) if is_moe else FeedForward(1, width, shape["ffn_width"])

    def forward(self, x):
        q, k, v = (self.norm1(x) @ self.qkv).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / q.shape[-1]
        scores = scores.masked_fill(torch.ones_like(scores[0, 0]).triu(1).bool(), -torch.inf)
        x = x + self.attention_scale * ((scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ self.out)
        return x + self.ffn_scale * self.ffn(self.norm2(x)).reshape(x.shape)


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        shape = config["shape"]
        self.tokens, self.positions = tensor(shape["vocab"], shape["width"]), tensor(shape["context"], shape["width"])
        self.blocks = nn.Sequential(*(Block(config) for _ in range(shape["depth"])))
        self.norm, self.head = Norm(shape["width"]), tensor(shape["width"], shape["vocab"])
        self.logit_scale = config["groups"]["head"]["forward"]

    def loss(self, ids):
        x = self.norm(self.blocks(self.tokens[ids[:, :-1]] + self.positions))
        return F.cross_entropy((self.logit_scale * (x @ self.head)).flatten(0, 1), ids[:, 1:].flatten())


def read_bytes(path):
    """All files of a folder, or the sources of Python's own library: what is trained on, and every tenth held out."""
    files = sorted(pathlib.Path(path).rglob("*") if path else pathlib.Path(os.__file__).parent.glob("*.py"))
    texts = [file.read_bytes() for file in files if file.is_file()]
    parts = [b"".join(text for i, text in enumerate(texts) if (i % 10 == 9) == held) for held in (False, True)]
    return [torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in parts]


def batch_of(data, number, length, seed):
    starts = torch.randint(len(data) - length, (number,), generator=torch.Generator().manual_seed(seed))
    return torch.stack([data[s:s + length + 1] for s in starts.tolist()]).long()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", help="what tuneonce wrote")
    config = tuneonce_groups.load(parser.parse_args().config)
    device = "cuda" if torch.cuda.is_available() else "cpu"  # the one that tuneonce left visible
    torch.manual_seed(config["seed"])
    context, steps, seed = config["shape"]["context"], config["steps"], config["seed"]
    data, held_out = read_bytes(config["data"]["path"])
    validation = batch_of(held_out, config["eval"]["tokens"] // context, context, 0).to(device)
    model = Model(config)
    tuneonce_groups.initialise(model, config, GROUPS)
    model.to(device)
    optimizer = torch.optim.AdamW(tuneonce_groups.parameter_groups(model, config, GROUPS))
    checkpoint, first = pathlib.Path(config["checkpoint_dir"], "last.pt"), 0
    if checkpoint.exists():  # an earlier attempt was killed
        first, weights, moments = torch.load(checkpoint, map_location=device)
        model.load_state_dict(weights)
        optimizer.load_state_dict(moments)
        print(f"attempt {config['attempt']} goes on from step {first}")

    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * tuneonce_groups.schedule(config, step)
        loss = model.loss(batch_of(data, config["batch"], context, 1000003 * seed + step).to(device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config["clip"] or torch.inf)
        optimizer.step()
        if (step + 1) % config["eval"]["every_steps"] == 0 or step + 1 == steps:
            with torch.no_grad():
                model.eval()
                tuneonce_groups.report(step=step + 1, train_loss=loss.item(), val_loss=model.loss(validation).item())
                model.train()
            torch.save((step + 1, model.state_dict(), optimizer.state_dict()), f"{checkpoint}.new")
            os.replace(f"{checkpoint}.new", checkpoint)


if __name__ == "__main__":
    main()
