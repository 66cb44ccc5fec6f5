"""New sessions on the device: fit unit and session embeddings without torch.

Start with ``Calibrator.open``; ``Calibrator.fit`` gives a ``CalibratedSession``, which knows how
good it is and refuses to be saved or swapped in when it is not.
"""

from poyo_edge.calibration.background import BackgroundFit
from poyo_edge.calibration.calibrated import CalibratedSession, Quality
from poyo_edge.calibration.calibrator import Calibrator
from poyo_edge.calibration.examining import Examination
from poyo_edge.calibration.fit.fitting import FitSettings
from poyo_edge.calibration.fit.pace import Progress
from poyo_edge.calibration.intention import IntentionLabels, IntentionSettings, intention_labels
from poyo_edge.calibration.lead import with_lead

__all__ = [
    "BackgroundFit",
    "CalibratedSession",
    "Calibrator",
    "Examination",
    "FitSettings",
    "IntentionLabels",
    "IntentionSettings",
    "Progress",
    "Quality",
    "intention_labels",
    "with_lead",
]
