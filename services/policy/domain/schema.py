"""The JSON Schema of a document, for editors: `docs/policy.schema.json`."""

from __future__ import annotations

import json
from typing import Any

from services.policy.domain.written import WrittenDocument

TITLE = "Yidi policy document 参保地待遇政策"


def schema_text() -> str:
    """The schema as it is published, one text for one model."""
    schema = WrittenDocument.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    told = {**head, "title": TITLE, **_untitled(schema)}
    return json.dumps(told, ensure_ascii=False, indent=1) + "\n"


def _untitled(schema: Any) -> Any:
    """Without the titles that only repeat the keys."""
    if isinstance(schema, list):
        return [_untitled(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _untitled(value)
        for key, value in schema.items()
        if key != "title" or not isinstance(value, str)
    }
