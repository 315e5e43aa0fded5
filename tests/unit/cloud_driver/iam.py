"""Which IAM actions were asked for, and whether the operator's policy is as wide as that."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import policy as policies
from policy import action

__all__ = ["Recorder", "action", "actions_of_log", "outside", "policy", "unused"]

# Requests whose things the policy lets be made only if they are tagged as the platform's.
_TAG = {"Key": "f1:platform", "Value": "f1"}


def policy() -> dict[str, Any]:
    """Return the operator's policy, placeholders included."""
    return policies.load()


def outside(policy: dict[str, Any], actions: set[str]) -> set[str]:
    """Return the ``actions`` that ``policy`` does not allow, but for those that need no leave."""
    return actions - policies.allowed(policy) - policies.FREE


def unused(policy: dict[str, Any], actions: set[str]) -> set[str]:
    """Return what ``policy`` allows and nobody asked for."""
    return policies.allowed(policy) - actions


def actions_of_log(path: Path) -> set[str]:
    """Return the actions of a request log: lines of ``{"service": …, "action": …}``."""
    lines = path.read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line) for line in lines if line.strip()]
    return {action(each["service"], each["action"]) for each in asked} - policies.FREE


class Recorder:
    """Hears every request of a session's clients made from now on, signed URLs included."""

    def __init__(self, session: boto3.Session) -> None:
        self.actions: set[str] = set()
        self.untagged: set[str] = set()  # made without the tag that the policy wants
        self._is_paused = False
        session.events.register("before-parameter-build.*.*", self._hear)
        wanted = [
            statement
            for statement in policies.load()["Statement"]
            if any(
                "RequestTag" in key
                for key in statement.get("Condition", {}).get("StringEquals", {})
            )
        ]
        self._tagged = policies.allowed({"Statement": wanted})

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hear nothing meanwhile: somebody else is asking."""
        self._is_paused = True
        yield
        self._is_paused = False

    def _hear(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        if self._is_paused:
            return
        service = model.service_model.service_name
        self.actions |= policies.actions(service, model.name, params)
        if action(service, model.name) in self._tagged:
            tags = [tag for each in params.get("TagSpecifications", []) for tag in each["Tags"]]
            if _TAG not in tags:
                self.untagged.add(action(service, model.name))
