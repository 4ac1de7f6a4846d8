"""Makes tests/fixtures/reference_vectors.json: what PyTorch and `transformers` say.

    python reference_vectors.py MODEL_FOLDER tests/fixtures/reference_vectors.json

For each text: the token ids (the first and the last eight of them, and how many), the mean of the
last layer's vectors over the tokens, its length before normalisation, and the normalised vector.
Tested with torch 2.11.0 and transformers 5.24.0.
"""

import json
import sys

import torch
import transformers

# A long text is written as a short one and how often it is repeated.
TEXTS = [
    ("I am still waiting on my card?", 1),
    ("What can I do if my card still hasn't arrived after 2 weeks?", 1),
    ("The quick brown fox jumps over the lazy dog.", 1),
    ("", 1),
    ("   \t\n ", 1),
    ("我的银行卡还没有到,请问什么时候能收到?", 1),
    ("转账失败了 transfer failed 但是钱被扣了", 1),
    ("🎉🚀 great service 👍👍", 1),
    ("👩‍👩‍👧‍👦", 1),
    ("Ünïcödé, café, naïve, ŁÓDŹ", 1),
    ("My top-up was reverted and I do not know why. ", 200),
    ("x" * 150 + " an over-long word", 1),
    ("a\u0000b\u200bc [MASK] [SEP] end", 1),
]
SHOWN = 8


def main() -> None:
    folder, target = sys.argv[1:]
    with open(f"{folder}/sentence_bert_config.json", encoding="utf-8") as file:
        limit = json.load(file)["max_seq_length"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    rows = []
    for text, repeated in TEXTS:
        tokens = tokenizer(text * repeated, truncation=True, max_length=limit, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).float()
        mean = ((hidden * mask).sum(1) / mask.sum(1))[0]
        unit = torch.nn.functional.normalize(mean, dim=0)
        ids = tokens["input_ids"][0].tolist()
        rows.append(
            {
                "text": text,
                "repeated": repeated,
                "tokens": len(ids),
                "first_ids": ids[:SHOWN],
                "last_ids": ids[-SHOWN:],
                "norm": round(mean.norm().item(), 6),
                "first": [round(x, 7) for x in unit[:SHOWN].tolist()],
                "last": [round(x, 7) for x in unit[-SHOWN:].tolist()],
                "sum": round(unit.double().sum().item(), 6),
            }
        )
    with open(target, "w", encoding="utf-8") as file:
        json.dump({"dim": len(unit), "rows": rows}, file, ensure_ascii=True, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
