"""Google Cloud Storage, as far as obstore, google-cloud-storage and signed addresses use it: in memory, on loopback.

It keeps what the real one is strict about: generations and conditions on them, pages of 1 000 keys, tokens, signatures.
"""

from __future__ import annotations

from gcs_access import Access
from gcs_json import JsonApi, is_json_api, json_error
from gcs_objects import Objects, Refused
from gcs_xml import XmlApi
from loopback import Answer, Asked, LoopbackServer, xml_error


class FakeGcs(LoopbackServer):
    """``objects`` is what it keeps, ``access`` whom it lets in."""

    def __init__(self) -> None:
        super().__init__()
        self.objects = Objects()
        self.access = Access(self.url)
        self._json = JsonApi(self.objects)
        self._xml = XmlApi(self.objects)

    def answer(self, asked: Asked) -> Answer:
        if asked.path == "/token":
            return self.access.exchange(asked)
        try:
            self.access.check(asked)
            return self._json.answer(asked) if is_json_api(asked) else self._xml.answer(asked)
        except Refused as error:
            if error.status == 304:
                return Answer(304)
            return json_error(error) if is_json_api(asked) else xml_error(error.status, error.code, error.message)
