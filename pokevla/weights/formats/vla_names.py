"""Names in the checkpoints of OpenVLA-OFT and VLA-Adapter: Prismatic in transformers' form, head and projector.

Sources: prismatic/models/action_heads.py and projectors.py (moojink/openvla-oft @213c5ff, OpenHelix-Team/VLA-Adapter
@838a36d).
"""

from __future__ import annotations

from pokevla.weights.conversion.weight_format import Duplicate, Ignored, NameMap, Row

HEAD, PROPRIO = "action_head.", "proprio_projector."

VLM_ROWS = (
    Row("vision_backbone.featurizer.{*}.scale_factor", "vlm.vision_backbone.dino_featurizer.{*}.gamma"),
    Row("vision_backbone.featurizer.{*}", "vlm.vision_backbone.dino_featurizer.{*}"),
    Row("vision_backbone.fused_featurizer.{*}.scale_factor", "vlm.vision_backbone.siglip_featurizer.{*}.gamma"),
    Row("vision_backbone.fused_featurizer.{*}", "vlm.vision_backbone.siglip_featurizer.{*}"),
    Row("projector.{*}", "vlm.projector.{*}"),
    Row("language_model.{*}", "vlm.language_model.{*}"),
)
PROPRIO_ROWS = (Row("fc1.{*}", "0.{*}"), Row("fc2.{*}", "2.{*}"))
OFT_ROWS = (
    Row("model.layer_norm1.{*}", "stem.0.{*}"),
    Row("model.fc1.{*}", "stem.1.{*}"),
    Row("model.layer_norm2.{*}", "norm.{*}"),
    Row("model.fc2.{*}", "output.{*}"),
    Row("model.mlp_resnet_blocks.{1}.ffn.{*}", "blocks.{1}.ffn.{*}"),
)
_BLOCK, _OURS = "model.mlp_resnet_blocks.{1}.", "blocks.{1}."
# "task" and "adapter" swap meaning between the variants of VLA-Adapter: Pro calls queries and proprio "adapter" and
# vision "task" (action_heads.py 241-245, 347-349). The original projects all sources with the same weights.
_BRIDGE = (
    ("q_proj", "query"), ("o_proj", "output"), ("k_proj", "sources.shared.key"), ("v_proj", "sources.shared.value"),
    ("k_self", "sources.latents.key"), ("v_self", "sources.latents.value"),
    ("k_adapter", "sources.queries.key"), ("v_adapter", "sources.queries.value"),
    ("k_task", "sources.vision.key"), ("v_task", "sources.vision.value"), ("film_gen.0", "film"),
)  # fmt: skip
BRIDGE_ROWS = (
    *OFT_ROWS,
    Row(f"{_BLOCK}gating_factor", f"{_OURS}gate"),
    *(Row(f"{_BLOCK}{theirs}.{{*}}", f"{_OURS}{ours}.{{*}}") for theirs, ours in _BRIDGE),
)


def _placed(rows: tuple[Row, ...], part: str, prefix: str) -> tuple[Row, ...]:
    """Rows of a part with the prefixes of its names."""
    return tuple(Row(f"{part}{prefix}{row.source}", f"{part}{row.ours}", row.transform) for row in rows)


def published_names(prefix: str, head: tuple[Row, ...], others: tuple[Row, ...] = ()) -> NameMap:
    """All names of a checkpoint. `prefix`: of the names in the files of head and projector; `head`: rows of the action
    head; `others`: more rows of the VLM's file."""
    return NameMap(
        rows=(*_placed(head, HEAD, prefix), *_placed(PROPRIO_ROWS, PROPRIO, prefix), *others, *VLM_ROWS),
        ignored=(
            Ignored("language_model.model.layers.{1}.self_attn.rotary_emb.inv_freq", "a constant of the rotary angles"),
        ),
        duplicates=(
            Duplicate("language_model.lm_head.weight", of="language_model.model.embed_tokens.weight", written=False),
        ),
    )
