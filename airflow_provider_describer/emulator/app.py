"""Which URL leads where."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_describer.emulator import image_describer, segmind
from airflow_provider_describer.emulator.bad_responses import html_page
from airflow_provider_describer.emulator.calls import BillableEndpoint, Vendor
from airflow_provider_describer.emulator.checks import FaultError
from airflow_provider_describer.emulator.faults import read_plan
from airflow_provider_describer.emulator.segmind_free import FreeEndpoints
from airflow_provider_describer.emulator.segmind_jobs import Jobs
from airflow_provider_describer.emulator.state import World


def build_app(keys: Mapping[str, str]) -> Starlette:
    """Return the emulator as an ASGI application, both vendors accepting the keys given."""
    world = World(keys)
    jobs = Jobs(world)
    v1 = segmind.Segmind(world)
    controls = Controls(world)
    return Starlette(
        routes=[
            billable(image_describer.ImageDescriber(world), image_describer.PATH),
            billable(v1, segmind.V1_PATH),
            billable(segmind.SegmindV2(world, jobs), segmind.V2_PATH),
            *FreeEndpoints(v1, jobs).routes(),
            Route("/_emulator/ledger", controls.ledger, methods=["GET", "DELETE"]),
            Route("/_emulator/faults", controls.faults, methods=["GET", "POST", "DELETE"]),
        ],
        exception_handlers={404: not_found, 405: wrong_method},
    )


def billable(vendor: Vendor, path: str) -> Route:
    return Route(path, BillableEndpoint(vendor, path), methods=["POST"])


async def not_found(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"Nothing is served at {request.url.path}"}, 404)


async def wrong_method(request: Request, error: Exception) -> Response:
    response = html_page(405)
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response


class Controls:
    """What a test does with the emulator behind the vendors' backs."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def ledger(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.world.ledger.clear()
            return JSONResponse({"cleared": True})
        with_entries = request.query_params.get("entries", "1") != "0"
        return JSONResponse(self.world.ledger.as_json(with_entries=with_entries))

    async def faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.world.use(read_plan({}))
        elif request.method == "POST":
            try:
                self.world.use(read_plan(json.loads(await request.body())))
            except FaultError as error:
                return JSONResponse({"error": str(error)}, 400)
            except ValueError:
                return JSONResponse({"error": "the body is not JSON"}, 400)
        return JSONResponse(self.world.dice.plan.source)
