"""What the server at hand can promise: it depends on how it is set up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dwkernel import errors
from dwkernel.bus.promises import Promise, Promises

if TYPE_CHECKING:
    from dwkernel.brokers.redis.link import Link

__all__ = ["Server"]

_OLDEST = (6, 2)
_ASKED = (
    "maxmemory-policy",
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
)


@dataclass(frozen=True)
class Server:
    """How a server is set up.

    Attributes:
        version: such as `(7, 0)`.
        is_cluster: whether it is one of a cluster.
        policy: its `maxmemory-policy`; None if it does not say.
        sync: how it keeps its append-only file: `"always"`, `"everysec"`, `"no"`, `"off"` without
            one, `"unknown"` if it does not say.

    """

    version: tuple[int, int]
    is_cluster: bool
    policy: str | None
    sync: str

    @classmethod
    def of(cls, link: Link, limit_s: float) -> Server:
        """Ask the server.

        Raises:
            Unavailable: `broker.lost`
            Denied: `broker.denied`
            Unsupported: `broker.unsupported`: it is too old

        """
        settings = [("CONFIG", "GET", name) for name in _ASKED]
        info, slots, *answers = link.ask([("INFO",), ("CLUSTER", "SLOTS"), *settings], limit_s)
        told = _pairs(info.decode().splitlines()) if isinstance(info, bytes) else {}
        # Where CONFIG is not allowed INFO says a part of it.
        set_to = dict.fromkeys(_ASKED, "")
        for name, answer in zip(_ASKED, answers, strict=True):
            if isinstance(answer, list) and len(answer) == 2:  # noqa: PLR2004 - a name and its value
                set_to[name] = answer[1].decode()
        numbers = (told.get("redis_version", "0.0") + ".0").split(".")
        version = int(numbers[0]), int(numbers[1])
        if told and version < _OLDEST:
            text = f"Redis {told.get('redis_version')} is too old: streams need 6.2"
            raise errors.new("broker.unsupported", text)
        policy = set_to["maxmemory-policy"] or told.get("maxmemory_policy")
        return cls(version, isinstance(slots, list), policy, _sync_of(set_to, told))

    def check_policy(self) -> None:
        """Refuse a server that throws keys away: messages would go, and nobody would be told.

        Raises:
            Unsupported: `broker.unsupported`

        """
        # None of our keys expires by itself, so `volatile-…` never takes one.
        if self.policy is not None and self.policy.startswith("allkeys"):
            text = f"the server's maxmemory-policy is {self.policy}: streams need noeviction"
            raise errors.new("broker.unsupported", text, option="maxmemory-policy")

    def promises(self, replicas: int) -> Promises:
        """Return what it promises."""
        always = self.sync == "always"
        return Promises(
            exactly_once_window=_yes("the id is noted in the step that takes the message"),
            atomic_batches=_yes("one script, one transaction in the append-only file"),
            atomic_groups=Promise(
                kept=not self.is_cluster,
                says="each stream lies in a slot of its own: no step spans two on a cluster"
                if self.is_cluster
                else "one script over all streams; not on a cluster",
            ),
            with_storage=_no("a store and a Redis have no commit together"),
            delayed=_yes("durable as any message; taken in by whoever publishes, reads or fetches"),
            inactive_after=_no("nobody on the server looks at the time"),
            priority=_no("a consumer takes messages in their order"),
            max_age=_yes("whoever publishes, reads or fetches lets them go"),
            max_bytes=_yes("at once, by the bytes of the fields; the last message stays"),
            max_messages=_yes("at once"),
            discard_new=_yes("refused with `stream.full`, as when the server's memory is full"),
            interest=_yes("what is done up to the slowest consumer's floor goes"),
            work_queue=_yes("what is done goes, up to the floor"),
            compaction_by_key=_yes("in the step that takes the new one"),
            replay_from_time=_yes("by the server's clock, which counts as never going back"),
            purge_by_subject=_yes("by a pattern, some messages at a time"),
            several_subjects=_yes("up to 256 patterns"),
            filters=_no("a script on the server knows subjects only"),
            ack_all=_yes("of what the same consumer object was handed before"),
            ack_none=_yes("at most once"),
            pause=_yes("at once"),
            dead_letters=_yes("in the step that ends the last delivery, with a copy"),
            durable_ack=Promise(kept=always, says=_SYNC[self.sync]),
            exact_deliveries=Promise(
                kept=self.sync in {"always", "no"},
                says=f"counted in the step that delivers; {_SYNC[self.sync]}",
            ),
            survives_kill=Promise(kept=self.sync in {"always", "no"}, says=_SYNC[self.sync]),
            survives_power_cut=Promise(kept=always, says=_SYNC[self.sync]),
            survives_lost_disk=_no(_replicated(replicas)),
            several_machines=_yes("over the network"),
            groups=_no("channels have none; several programs share a consumer of a stream"),
            no_responder=Promise(
                kept=not self.is_cluster,
                says="a server of a cluster does not know who listens to the others"
                if self.is_cluster
                else "by the count of who listens to the subject, or to a pattern that begins so",
            ),
        )


_SYNC = {
    "always": "appendfsync always: synced before it is confirmed",
    "everysec": "appendfsync everysec: the last second or two may be gone",
    "no": "appendfsync no: a killed server loses nothing, a power cut what was not written yet",
    "off": "no append-only file: all since the last snapshot is gone",
    "unknown": "the server does not say how it syncs: ask who runs it for appendfsync always",
}


def _replicated(replicas: int) -> str:
    if replicas > 1:
        return (
            f"confirmed when {replicas - 1} other servers have it in memory; copying is"
            " asynchronous all the same: who promotes one must choose one that has it"
        )
    return "one server; copies of it are asynchronous, see replicas="


def _sync_of(set_to: dict[str, str], told: dict[str, str]) -> str:
    if set_to["appendonly"] == "no" or told.get("aof_enabled") == "0":
        return "off"
    sync = set_to["appendfsync"]
    if sync == "always" and set_to["no-appendfsync-on-rewrite"] != "no":
        # While the file is written anew nothing is synced.
        return "no"
    return sync if sync in _SYNC else "unknown"


def _pairs(lines: list[str]) -> dict[str, str]:
    found = (line.partition(":") for line in lines if ":" in line)
    return {name: value for name, _, value in found}


def _yes(says: str) -> Promise:
    return Promise(kept=True, says=says)


def _no(says: str) -> Promise:
    return Promise(kept=False, says=says)
