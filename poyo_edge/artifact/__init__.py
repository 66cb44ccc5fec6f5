"""Artifacts and session files: what a device is given, checked before anything is used."""

from poyo_edge.artifact.activity import Activity, activity_of, recording_activity
from poyo_edge.artifact.artifact import (
    ADAPT,
    ADAPT_ORT_CPU,
    CORE,
    CORE_CPU,
    CORE_ORT_CPU,
    GOLDEN,
    MANIFEST,
    PRIOR,
    SESSIONS,
    WEIGHTS,
    Artifact,
    FileRecord,
    Manifest,
    read_manifest,
)
from poyo_edge.artifact.golden import Golden, GoldenGradients
from poyo_edge.artifact.session import (
    UNLABELLED,
    LabelsMade,
    Session,
    SessionHeader,
    read_header,
)

__all__ = [
    "ADAPT",
    "ADAPT_ORT_CPU",
    "CORE",
    "CORE_CPU",
    "CORE_ORT_CPU",
    "GOLDEN",
    "MANIFEST",
    "PRIOR",
    "SESSIONS",
    "UNLABELLED",
    "WEIGHTS",
    "Activity",
    "Artifact",
    "FileRecord",
    "Golden",
    "GoldenGradients",
    "LabelsMade",
    "Manifest",
    "Session",
    "SessionHeader",
    "activity_of",
    "read_header",
    "read_manifest",
    "recording_activity",
]
