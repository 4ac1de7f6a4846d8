"""PyTorch's side of `make bench-train`: the networks `ligr` and `sasrec` as a person would write them.

`bench-train` starts it with a safetensors file of weights, an example batch and the histories. It says
`{"version", "loss"}` when it is ready, where `loss` is the example's, then trains for as many seconds as
each line of its input names and says `{"steps", "targets", "seconds"}`.

The mathematics are those of services/trainer/src/models/sequence/encoders: attention by
`scaled_dot_product_attention`, `nn.Linear`, `nn.LayerNorm`, `F.cross_entropy` over all items at the positions
that are not padding, and AdamW in its fused form, which is its fastest.
"""

import argparse
import json
import sys
import time
import warnings

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

BLOCKED = -1e9


def read_safetensors(path):
    """Tensors by name: a length, a JSON header of that length, then the bytes."""
    kinds = {"F32": torch.float32, "I64": torch.int64}
    with open(path, "rb") as file:
        content = bytearray(file.read())
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, at in json.loads(content[8:start]).items():
        if name == "__metadata__":
            continue
        first, last = at["data_offsets"]
        kind = kinds[at["dtype"]]
        values = torch.frombuffer(content[start + first : start + last], dtype=kind)
        tensors[name] = values.reshape(at["shape"]).clone()
    return tensors


def heads_apart(x, heads):
    """`[batch, length, dim]` to `[batch, heads, length, dim / heads]`."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def together(x):
    """`[batch, heads, length, part]` to `[batch, length, heads * part]`."""
    return x.transpose(1, 2).flatten(2)


def hidden_from(items):
    """What positions of `items` `[batch, length]` must not see: padding and the future, `[batch, 1, length,
    length]`."""
    length = items.shape[1]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    return (items == 0)[:, None, None, :] | future


class LigrBlock(nn.Module):
    def __init__(self, recipe):
        super().__init__()
        dim, hidden = recipe["dim"], recipe["hidden"]
        self.heads = recipe["heads"]
        self.attention_norm = nn.LayerNorm(dim, eps=1e-5)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.merge = nn.Linear(dim, dim, bias=False)
        self.distance = nn.Embedding(recipe["sequence_length"], self.heads)
        self.attention_gate = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim, eps=1e-5)
        self.widen = nn.Linear(dim, 2 * hidden, bias=False)
        self.narrow = nn.Linear(hidden, dim, bias=False)
        self.feed_gate = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(recipe["dropout"])

    def forward(self, x, distances, blocked):
        query, key, value = (heads_apart(part, self.heads) for part in self.qkv(self.attention_norm(x)).chunk(3, -1))
        bias = self.distance(distances).permute(2, 0, 1)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.masked_fill(blocked, BLOCKED))
        x = x + torch.sigmoid(self.attention_gate(x)) * self.dropout(self.merge(together(seen)))
        active, linear = self.widen(self.feed_norm(x)).chunk(2, -1)
        return x + torch.sigmoid(self.feed_gate(x)) * self.dropout(self.narrow(F.silu(active) * linear))


class Ligr(nn.Module):
    def __init__(self, recipe, width):
        super().__init__()
        self.items = nn.Embedding(width, recipe["dim"])
        self.scale = recipe["dim"] ** 0.5
        self.longest = recipe["sequence_length"]
        self.blocks = [LigrBlock(recipe) for _ in range(recipe["blocks"])]
        for index, block in enumerate(self.blocks):
            self.add_module(f"block{index}", block)
        self.norm = nn.LayerNorm(recipe["dim"], eps=1e-5)
        self.dropout = nn.Dropout(recipe["dropout"])

    def forward(self, items):
        places = torch.arange(items.shape[1])
        distances = (places[:, None] - places[None, :]).clamp(0, self.longest - 1)
        blocked = hidden_from(items)
        x = self.dropout(self.items(items) * self.scale)
        for block in self.blocks:
            x = block(x, distances, blocked)
        return self.norm(x)


class SasRecBlock(nn.Module):
    def __init__(self, recipe):
        super().__init__()
        dim, hidden = recipe["dim"], recipe["hidden"]
        self.heads, self.rate = recipe["heads"], recipe["dropout"]
        self.query_norm = nn.LayerNorm(dim, eps=1e-8)
        self.query, self.key, self.value, self.merge = (nn.Linear(dim, dim) for _ in range(4))
        self.feed_norm = nn.LayerNorm(dim, eps=1e-8)
        self.first, self.second = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(recipe["dropout"])

    def forward(self, x, seen, present):
        normed = self.query_norm(x)
        query, key, value = (
            heads_apart(part, self.heads) for part in (self.query(normed), self.key(x), self.value(x))
        )
        rate = self.rate if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, dropout_p=rate)
        x = self.feed_norm(normed + self.merge(together(attended)))
        fed = self.dropout(self.second(self.dropout(torch.relu(self.first(x)))))
        return (x + fed) * present


class SasRec(nn.Module):
    def __init__(self, recipe, width):
        super().__init__()
        self.items = nn.Embedding(width, recipe["dim"])
        self.scale = recipe["dim"] ** 0.5
        self.places = nn.Embedding(recipe["sequence_length"], recipe["dim"])
        self.blocks = [SasRecBlock(recipe) for _ in range(recipe["blocks"])]
        for index, block in enumerate(self.blocks):
            self.add_module(f"block{index}", block)
        self.norm = nn.LayerNorm(recipe["dim"], eps=1e-8)
        self.dropout = nn.Dropout(recipe["dropout"])

    def forward(self, items):
        seen = ~hidden_from(items)
        present = (items > 0).float().unsqueeze(-1)
        longest = self.places.num_embeddings
        # The newest item stands at the last place.
        places = self.places(torch.arange(longest - items.shape[1], longest))
        x = self.dropout(self.items(items) * self.scale + places) * present
        for block in self.blocks:
            x = block(x, seen, present)
        return self.norm(x)


def take_weights(model, weights):
    """Copies `weights` by name; matrices are `[from, to]` there and the other way round in `nn.Linear`."""
    left = dict(weights)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                own = f"{name}.weight" if f"{name}.weight" in left else name
                module.weight.copy_(left.pop(own).T)
                if module.bias is not None:
                    module.bias.copy_(left.pop(f"{name}.bias"))
            elif isinstance(module, nn.LayerNorm):
                module.weight.copy_(left.pop(f"{name}.scale"))
                module.bias.copy_(left.pop(f"{name}.shift"))
            elif isinstance(module, nn.Embedding):
                module.weight.copy_(left.pop(name))
    assert not left, f"weights that this network does not have: {sorted(left)}"


def mean_loss(model, items, targets):
    """Full cross-entropy where `targets` `[batch, length]` is not 0; item 0 is padding and no answer."""
    asked = targets > 0
    logits = model(items)[asked] @ model.items.weight[1:].T
    return F.cross_entropy(logits, targets[asked] - 1)


def padded(sequences, length):
    """Inputs and targets `[batch, length]` of sequences of items, padded on the left with 0."""
    whole = torch.zeros(len(sequences), length + 1, dtype=torch.int64)
    for row, sequence in zip(whole, sequences):
        row[length + 1 - len(sequence) :] = sequence
    targets = whole[:, 1:].clone()
    targets[whole[:, :-1] == 0] = 0  # the first item follows nothing
    return whole[:, :-1], targets


def batches(histories, padding, size, length):
    """A loader of random batches of `size` sequences, as padded inputs and targets."""
    if padding == "longest":
        gather = lambda sequences: padded(sequences, max(len(sequence) for sequence in sequences) - 1)
        return DataLoader(histories, batch_size=size, shuffle=True, collate_fn=gather)
    # Padded once, so that only rows are gathered.
    inputs, targets = padded(histories, length)
    return DataLoader(list(zip(inputs, targets)), batch_size=size, shuffle=True)


def train(model, optimizer, loader, clip_norm, seconds):
    """Whole steps until `seconds` are over."""
    started = time.perf_counter()
    steps = learned = 0
    while True:
        for items, targets in loader:
            loss = mean_loss(model, items, targets)
            optimizer.zero_grad()
            loss.backward()
            if clip_norm > 0:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
            steps += 1
            learned += int((targets > 0).sum())
            taken = time.perf_counter() - started
            if taken >= seconds:
                return {"steps": steps, "targets": learned, "seconds": taken}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("handed", help="safetensors: weights, an example batch, histories")
    arguments.add_argument("--kind", choices=["ligr", "sasrec"], required=True)
    arguments.add_argument("--recipe", type=json.loads, required=True)
    arguments.add_argument("--padding", choices=["full", "longest"], required=True)
    arguments.add_argument("--threads", type=int, required=True)
    arguments.add_argument("--batch", type=int, required=True)
    arguments = arguments.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(42)
    recipe = arguments.recipe
    assert recipe["loss"] == "cross_entropy"

    handed = read_safetensors(arguments.handed)
    weights = {name.removeprefix("weights."): value for name, value in handed.items() if name.startswith("weights.")}
    network = Ligr if arguments.kind == "ligr" else SasRec
    model = network(recipe, len(weights["items"]))
    take_weights(model, weights)
    model.eval()
    with torch.no_grad():
        loss = mean_loss(model, handed["items"], handed["targets"]).item()
    model.train()

    histories = handed["histories.items"].split(handed["histories.lengths"].tolist())
    loader = batches(histories, arguments.padding, arguments.batch, recipe["sequence_length"])
    rate, betas = recipe["learning_rate"], (0.9, recipe["beta2"])
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=betas, weight_decay=recipe["weight_decay"], fused=True
    )
    print(json.dumps({"version": f"PyTorch {torch.__version__}", "loss": loss}), flush=True)
    for line in sys.stdin:
        print(json.dumps(train(model, optimizer, loader, recipe["clip_norm"], float(line))), flush=True)


if __name__ == "__main__":
    main()
