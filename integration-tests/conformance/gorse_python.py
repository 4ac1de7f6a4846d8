"""Gorse's own Python client, told what to call: one JSON line a call on standard input, one answer each."""
import json
import sys

from gorse import Gorse, GorseException, Score

client = Gorse(sys.argv[1], sys.argv[2], timeout=60)


def plain(answer):
    """Answers that the client has made objects of, as JSON again."""
    if isinstance(answer, (list, tuple)):
        return [plain(one) for one in answer]
    return answer.to_dict() if isinstance(answer, Score) else answer


for line in sys.stdin:
    call = json.loads(line)
    try:
        said = {"answer": plain(getattr(client, call["method"])(**call["arguments"]))}
    except GorseException as error:
        said = {"status": error.status_code, "message": error.message}
    print(json.dumps(said), flush=True)
