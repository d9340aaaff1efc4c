"""What /openapi.json says of the P&L body: made from the structs that write it, so that no field is forgotten."""

from typing import Any, Final

import msgspec

from apps.execution_gateway.bodies import PnlBody, PnlRow

_REF: Final = "#/components/schemas/{name}"
PNL_SCHEMA: Final = {"$ref": _REF.format(name="PnlBody")}


def pnl_components() -> dict[str, Any]:
    """Return the schemas of the P&L body and of all that stands in it, by name."""
    _, components = msgspec.json.schema_components([PnlBody, PnlRow], ref_template=_REF)
    components["PnlBody"]["properties"]["positions"]["items"] = {"$ref": _REF.format(name="PnlRow")}
    written: dict[str, Any] = _as_written(components)
    return written


def _as_written(schema: Any) -> Any:
    """Return `schema` with every decimal as the JSON number that `encode` writes."""
    if isinstance(schema, list):
        return [_as_written(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "decimal":
        return {"type": "number"}
    return {name: _as_written(one) for name, one in schema.items()}
