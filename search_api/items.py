"""`/v1/collections/{c}/items`: upload, see, change and remove items, and fetch their originals and thumbnails."""

from __future__ import annotations

import io
from typing import Annotated, Any

from flask import Blueprint, Response, jsonify, request, send_file
from pydantic import BaseModel, ConfigDict, Field

from indexer.errors import InvalidRequest, ItemNotFound, NotAnImage
from indexer.items import Kind, check_collection_name, point_id
from search_api.bodies import form_files, form_json, is_form, json_body, validated
from search_api.request import Text
from search_api.services import services

blueprint = Blueprint("items", __name__, url_prefix="/v1/collections/<name>/items")

MAX_ITEMS = 1000
"""Items in one request."""

Id = Annotated[Text, Field(min_length=1, max_length=512)]
