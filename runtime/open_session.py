"""A session ready to decode with: its constants, its units and its health."""

from __future__ import annotations

import dataclasses

from poyo_edge.artifact import Session
from poyo_edge.errors import UsageError
from poyo_edge.runtime.constants import SessionConstants
from poyo_edge.runtime.core import Core
from poyo_edge.runtime.health import HealthMonitor, HealthSettings
from poyo_edge.runtime.intake import UnitTable


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """Replaced as a whole."""

    session_id: str
    units: UnitTable
    constants: SessionConstants
    health: HealthMonitor
    takes_integers: bool
    """Its units are those of the session that the decoder was opened with."""

    @classmethod
    def prepare(
        cls, core: Core, session: Session, opened_with: tuple[str, ...], health: HealthSettings
    ) -> OpenSession:
        """A session for this core.

        Args:
            core: what decodes.
            session: what to decode with.
            opened_with: unit ids that plain integers are rows of.
            health: from when on a stream is no longer what it was.

        Raises:
            UsageError: it was made for another core, or for other outputs.
        """
        manifest = core.artifact.manifest
        if session.header.core_hash != manifest.core_hash:
            raise UsageError(
                f"session {session.header.session_id!r}: expected one made for core "
                f"{manifest.core_hash[:12]}, got {session.header.core_hash[:12]}; "
                f"use a session that was made for this artifact"
            )
        dim_out, activity = manifest.spec.dim_out, session.activity
        if activity is not None and len(activity.output_low) != dim_out:
            raise UsageError(
                f"session {session.header.session_id!r}: output_low: expected {dim_out} outputs, "
                f"got {len(activity.output_low)}; calibrate it again"
            )
        ids = session.header.unit_ids
        return cls(
            session_id=session.header.session_id,
            units=UnitTable(ids),
            constants=core.constants(session.unit_embedding, session.session_embedding),
            health=HealthMonitor(ids, activity, manifest.spec.window_seconds, health),
            takes_integers=ids == opened_with,
        )
