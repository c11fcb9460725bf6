"""What a party answers: taken once, and answered the same way when it is sent again."""

from typing import Any

from comity.ledger.mailbox import Reply
from comity.service import packets
from comity.service.hub import SMALL, Asked, Extra, Hub, Refused, answer_json

_WHY = {
    "late": "No more answers to this are taken.",
    "answered": "This was answered before, with something else.",
    "unknown": "You were not asked this.",
}


async def reply(hub: Hub, asked: Asked) -> Any:
    """Take an answer."""
    from starlette.concurrency import run_in_threadpool

    packet = packets.read(asked.body)
    said, who = packet.said, asked.who
    if (said.sender, said.round.me) != (who, who):
        raise Refused(403, "An answer must be the sender's own.")
    r = said.round
    if not (0 <= r.number < 2**63 and 0 <= r.attempt < 2**63):
        raise Refused(409, _WHY["unknown"])
    if packet.body is None and await run_in_threadpool(hub.blobs.size, who, packet.ref.sha) != packet.ref.size:
        raise Refused(409, "Send the body first.", missing=True)
    turn = (r.run, r.number, r.attempt, r.hub, said.phase)
    row = await hub.row(r.run)
    if row is not None and row.recipe.get("hash") != said.recipe:
        raise Refused(409, "This hub runs another recipe.")
    outcome = await hub.off(hub.box.commit, turn, who, packet.ref.asked, Reply(packet.ref.sha, asked.body))
    if outcome not in ("accepted", "duplicate"):
        raise Refused(409, _WHY[outcome])
    return answer_json(200, {"outcome": outcome})


ROUTES: tuple[Extra, ...] = (("/v1/reply", "POST", reply, SMALL),)
