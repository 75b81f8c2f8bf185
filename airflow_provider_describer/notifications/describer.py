"""A notifier that speaks up where a person has to do something: a spent budget, an empty account, many failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseNotifier

from airflow_provider_describer.engine.occasions import (
    LIMIT_REACHED,
    OCCASIONS,
    Occasion,
    check_occasions,
    message_of,
    occasions_of,
)
from airflow_provider_describer.errors import BadInput, DescriberError

if TYPE_CHECKING:
    from airflow.sdk import Context

Send = Callable[[Any], Any]
log = logging.getLogger(__name__)


class DescriberNotifier(BaseNotifier):
    """Sends other notifiers where a task that describes images needs a person, and stays silent otherwise.

    It is for ``on_success_callback``, ``on_failure_callback`` and ``on_retry_callback`` of a task. What has happened is
    read from the task's error and from its manifest in XCom; where XCom cannot be read, the error alone decides.
    The notifiers find, in their templates, ``describer_subject`` (a line), ``describer_message`` (a few sentences) and
    ``describer_occasions`` (a list of names)::

        tell = DescriberNotifier(
            send=[SmtpNotifier(to="catalog@shop.com", subject="{{ describer_subject }}",
                               html_content="{{ describer_message }}")],
            on=["budget_reached", "out_of_credits", "failure_share"],
            failure_share=0.05,
        )
        DescribeImagesOperator(..., on_success_callback=tell, on_failure_callback=tell)

    One that fails is logged, and the others are sent. Neither subject nor message holds a secret.

    :param send: notifiers, or functions of the context.
    :param on: ``budget_reached``: a limit of the task or of its connection has left images pending; ``out_of_credits``:
        the account is empty; ``failure_share``: too many images have no description, as they were rejected or their
        calls' answers are lost. By default all three.
    :param failure_share: the share of such images, from 0 to 1, above which ``failure_share`` is sent.
    :raises BadInput: for a value that cannot work.
    """

    def __init__(
        self,
        send: Send | Sequence[Send],
        on: Collection[Occasion] = OCCASIONS,
        failure_share: float = 0.05,
    ) -> None:
        super().__init__()
        self.send = list(send) if isinstance(send, Sequence) else [send]
        self.on = tuple(on)
        self.failure_share = failure_share
        check_occasions(self.send, self.on, failure_share)

    def notify(self, context: Context) -> None:
        """Send, if there is an occasion to."""
        if (told := self._told(context)) is None:
            return
        for send in self.send:
            try:
                # Rendering replaces a notifier's templates, and it may be used for several tasks.
                copy(send)(told)
            except Exception:
                log.exception("%s could not be sent", type(send).__name__)

    async def async_notify(self, context: Context) -> None:
        """Send, if there is an occasion to; notifiers that cannot do so asynchronously are sent in a thread."""
        told = await asyncio.to_thread(self._told, context)
        if told is None:
            return
        for send in self.send:
            try:
                await _asend(copy(send), told)
            except Exception:
                log.exception("%s could not be sent", type(send).__name__)

    def _told(self, context: Context) -> dict[str, Any] | None:
        """Return the context for the notifiers, or None where there is nothing to tell."""
        error = context.get("exception")
        error = getattr(error, "describer_error", error)
        manifest, limit = _manifest_and_limit(context, error)
        occasions = occasions_of(manifest, limit, error, self.failure_share)
        occasions = {name: words for name, words in occasions.items() if name in self.on}
        if not occasions:
            return None
        ti = context["ti"]
        subject, message = message_of(occasions, f"{ti.dag_id}.{ti.task_id}", ti.run_id, manifest)
        return {
            **context,
            "describer_subject": subject,
            "describer_message": message,
            "describer_occasions": list(occasions),
        }


def _manifest_and_limit(context: Context, error: object) -> tuple[Mapping[str, Any] | None, object]:
    """Return what a task has pushed. What cannot be there is not asked for, as Airflow logs an error then."""
    if error is not None and (not isinstance(error, DescriberError) or isinstance(error, BadInput)):
        return None, None
    found = _pulled(context, "return_value" if error is None else "manifest")
    manifest = found if isinstance(found, Mapping) and isinstance(found.get("counts"), Mapping) else None
    has_limit = error is None if manifest is None else bool(manifest["counts"].get("pending"))
    return manifest, _pulled(context, LIMIT_REACHED) if has_limit else None


def _pulled(context: Context, key: str) -> Any:
    """Return the task's own XCom, or None; also where it cannot be read."""
    ti = context["ti"]
    try:
        return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=-1 if ti.map_index is None else ti.map_index)
    except Exception as error:  # noqa: BLE001  # whatever the XCom backend raises: the error alone decides then
        log.warning("XCom %r of %s cannot be read: %s", key, ti.task_id, type(error).__name__)
        return None


async def _asend(send: Send, told: dict[str, Any]) -> None:
    if isinstance(send, BaseNotifier) and type(send).async_notify is not BaseNotifier.async_notify:
        send.context = told  # type: ignore[assignment]  # a context with three more names
        await send
    else:
        await asyncio.to_thread(send, told)
