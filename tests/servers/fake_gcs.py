"""Google Cloud Storage for tests: what obstore, google-cloud-storage and signed URLs use of it, in memory.

It is as strict as the real one about generations and conditions, pages of 1 000 keys, tokens and signatures.
"""

from __future__ import annotations

from gcs_access import Access
from gcs_json import JsonApi, is_json_api, json_error
from gcs_objects import Objects, Refused
from gcs_xml import XmlApi
from loopback import Answer, LoopbackServer, Request, xml_error


class FakeGcs(LoopbackServer):
    """``objects`` is its state, ``access`` its access control."""

    def __init__(self) -> None:
        super().__init__()
        self.objects = Objects()
        self.access = Access(self.url)
        self._json = JsonApi(self.objects)
        self._xml = XmlApi(self.objects)

    def answer(self, request: Request) -> Answer:
        if request.path == "/token":
            return self.access.exchange(request)
        try:
            self.access.check(request)
            return self._json.answer(request) if is_json_api(request) else self._xml.answer(request)
        except Refused as error:
            if error.status == 304:
                return Answer(304)
            return json_error(error) if is_json_api(request) else xml_error(error.status, error.code, error.message)
