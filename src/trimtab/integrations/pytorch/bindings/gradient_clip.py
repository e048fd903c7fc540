"""The largest gradient norm: ``max_norm`` of every `GradientClip` of the run."""

from __future__ import annotations

from trimtab.controls.entries import GRADIENT_CLIP_NORM
from trimtab.errors import ControlError
from trimtab.integrations.pytorch.bindings.observed import Place, PlacesBinding, listed
from trimtab.integrations.pytorch.parts.gradient_clip import GradientClip
from trimtab.integrations.pytorch.training import Training


def bind_gradient_clip_norm(training: Training) -> PlacesBinding:
    """Bind gradient_clip_norm to every `GradientClip` among the parts; the value is the largest, ratios are kept.

    Raises:
        ControlError: Clip with a `GradientClip` and pass it among the parts.
        OwnershipError: Another supervisor has one of the clips.
    """
    clips = training.find(GradientClip)
    if not clips:
        raise ControlError(
            "nothing in this run clips gradients where it could be changed",
            received=f"parts: {listed([type(part).__name__ for part in training.parts])}",
            allowed="a GradientClip, called in place of torch.nn.utils.clip_grad_norm_",
            next_step="make clip = trimtab.GradientClip(model.parameters(), max_norm=1.0), call clip() before "
            "optimizer.step(), and pass parts=[clip]",
        )
    places = [Place(clip, "max_norm", "GradientClip.max_norm") for clip in clips]
    return PlacesBinding(GRADIENT_CLIP_NORM, training.optimizer, places)
