"""What Segmind does free of charge: polls, uploads, and telling the balance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from airflow_provider_describer.emulator.assets import StorageFullError
from airflow_provider_describer.emulator.bad_responses import html_page
from airflow_provider_describer.emulator.calls import RefusedError, read_body
from airflow_provider_describer.emulator.faults import SEGMIND
from airflow_provider_describer.emulator.image_input import ImageRefusedError, from_data_uri, sha256
from airflow_provider_describer.emulator.ledger import usd
from airflow_provider_describer.emulator.segmind import Segmind, error, read_json
from airflow_provider_describer.emulator.segmind_jobs import Jobs

Handler = Callable[[Request], Awaitable[Response]]


class FreeEndpoints:
    """Segmind's endpoints that cost nothing; all but the stored files want the key."""

    def __init__(self, vendor: Segmind, jobs: Jobs) -> None:
        self.vendor = vendor
        self.world = vendor.world
        self.jobs = jobs

    def routes(self) -> list[Route]:
        return [
            Route("/v2/requests/{id}/status", self.keyed(self.status)),
            Route("/v2/requests/{id}", self.keyed(self.result)),
            Route("/v1/requests/{id}", self.keyed(self.result)),
            Route("/v1/get-user-credits", self.keyed(self.credits)),
            Route("/upload-asset", self.keyed(self.upload), methods=["POST"]),
            Route("/assets/{name}", self.asset),
            # After the models that exist.
            Route("/v1/{model}", self.keyed(self.unknown_model), methods=["POST"]),
            Route("/v2/{model}", self.keyed(self.unknown_model), methods=["POST"]),
        ]

    def keyed(self, handler: Handler) -> Handler:
        """Return the handler behind a check of the key, with its refusals turned into answers."""

        async def check_and_handle(request: Request) -> Response:
            self.world.ledger.free_requests += 1
            try:
                self.vendor.check_key(request)
                return await handler(request)
            except RefusedError as refused:
                return self.vendor.error(refused)

        return check_and_handle

    async def status(self, request: Request) -> Response:
        return self.poll(request, with_output=False)

    async def result(self, request: Request) -> Response:
        return self.poll(request, with_output=True)

    def poll(self, request: Request, *, with_output: bool) -> Response:
        job = self.jobs.by_id.get(request.path_params["id"])
        if job is None:
            return error(404, f"Request {request.path_params['id']} not found")
        job.polls += 1
        if self.world.dice.poll_fails(SEGMIND, job.entry.image_sha256 or "", job.polls):
            return html_page(502)
        shown = self.jobs.shown(job, str(request.base_url), with_output=with_output)
        return JSONResponse(shown, 422 if job.state == "FAILED" else 200)

    async def credits(self, request: Request) -> Response:
        balance = self.world.ledger.accounts[SEGMIND].balance
        if balance is None:
            return error(404, "No credits found for the user")
        return JSONResponse({"credits": usd(balance), "free-credits": 0.0})

    async def upload(self, request: Request) -> Response:
        body = await read_body(request)
        if body is None:
            raise RefusedError("too_large")
        uris = read_json(request, body).get("data_urls")
        if not isinstance(uris, list) or not uris:
            raise RefusedError("bad_request", "data_urls is required and must be a list of data URIs")
        names = [await self.keep(uri, number) for number, uri in enumerate(uris)]
        urls = [f"{request.base_url}assets/{name}" for name in names]
        field = self.world.faults(SEGMIND).upload_answer
        return JSONResponse({field: urls, "message": "Files uploaded successfully"})

    async def keep(self, uri: object, number: int) -> str:
        if not isinstance(uri, str):
            raise RefusedError("bad_request", f"data_urls[{number}] is not a data URI")
        try:
            received = await self.world.intake.run(from_data_uri, uri)
            fingerprint = await self.world.intake.run(sha256, received.data)
            return self.world.assets.keep(received.data, received.claimed_type or "", fingerprint)
        except ImageRefusedError as problem:
            raise RefusedError("bad_request", f"data_urls[{number}]: {problem}") from problem
        except StorageFullError as problem:
            raise RefusedError("server_error", str(problem)) from problem

    async def asset(self, request: Request) -> Response:
        asset = self.world.assets.by_name.get(request.path_params["name"])
        if asset is None:
            return error(404, "No such asset")
        return Response(asset.data, media_type=asset.media_type)

    async def unknown_model(self, request: Request) -> Response:
        raise RefusedError("not_found", f"Model {request.path_params['model']} not found")
