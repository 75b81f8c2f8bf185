"""Access control of the fake GCS: bearer tokens that it issued or its account signed, and signed URLs."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from gcs_objects import Refused
from loopback import Answer, Request

LONGEST_S = 7 * 24 * 3600


class Access:
    """One service account. ``key_file`` is the downloadable key file; its private key was made here."""

    def __init__(self, url: str) -> None:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._public = private.public_key()
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._tokens: set[str] = set()
        self.key_file: dict[str, str] = {
            "type": "service_account",
            "project_id": "shop",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": "catalog@shop.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": f"{url}/token",
        }

    def new_token(self) -> str:
        token = f"ya29.{secrets.token_urlsafe(24)}"
        self._tokens.add(token)
        return token

    def exchange(self, request: Request) -> Answer:
        """Return a token for a signed assertion, as OAuth's token endpoint does."""
        assertion = parse_qs(request.body.decode()).get("assertion", [""])[0]
        claims = self._claims(assertion)
        if claims is None or not claims.get("scope"):
            reason = "invalid_grant" if claims is None else "invalid_scope"
            return Answer(400, json.dumps({"error": reason}).encode(), {"Content-Type": "application/json"})
        payload = {"access_token": self.new_token(), "token_type": "Bearer", "expires_in": 3600}
        return Answer(200, json.dumps(payload).encode(), {"Content-Type": "application/json"})

    def check(self, request: Request) -> None:
        """Raise `Refused` unless the request is allowed."""
        if "X-Goog-Signature" in request.query:
            self._check_signed(request)
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or (token not in self._tokens and self._claims(token) is None):
            raise Refused(401, "AuthenticationRequired", "Authentication required.")

    def _claims(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a JWT of this account; None for another account's, or an expired one."""
        try:
            head, claims, signature = token.split(".")
            self._verify(_decoded(signature), f"{head}.{claims}")
            payload: dict[str, Any] = json.loads(_decoded(claims))
        except (ValueError, InvalidSignature):
            return None
        valid = payload.get("iss") == self.key_file["client_email"] and payload.get("exp", 0) > time.time()
        return payload if valid else None

    def _verify(self, signature: bytes, signed: str) -> None:
        self._public.verify(signature, signed.encode(), padding.PKCS1v15(), hashes.SHA256())

    def _check_signed(self, request: Request) -> None:
        """Check a V4 signed URL: https://cloud.google.com/storage/docs/authentication/signatures."""
        query = request.query
        seconds = int(query["X-Goog-Expires"])
        if seconds > LONGEST_S:
            raise Refused(400, "AuthorizationQueryParametersError", "X-Goog-Expires must be at most 604800 seconds.")
        signed_at = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if datetime.now(UTC) > signed_at + timedelta(seconds=seconds):
            raise Refused(400, "ExpiredToken", "The provided token has expired.")
        email, _, scope = query["X-Goog-Credential"].partition("/")
        digest = hashlib.sha256(_canonical(request).encode()).hexdigest()
        text = "\n".join([query["X-Goog-Algorithm"], query["X-Goog-Date"], scope, digest])
        try:
            self._verify(bytes.fromhex(query["X-Goog-Signature"]), text)
        except (ValueError, InvalidSignature):
            email = ""
        if email != self.key_file["client_email"]:
            raise Refused(403, "SignatureDoesNotMatch", "Access denied.")


def _canonical(request: Request) -> str:
    """Return the canonical request, which is what the client signs."""
    names = request.query["X-Goog-SignedHeaders"].split(";")
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names)
    fields = sorted(one for one in request.raw_query.split("&") if not one.startswith("X-Goog-Signature="))
    payload = request.headers.get("x-goog-content-sha256", "UNSIGNED-PAYLOAD")
    return "\n".join([request.method, request.raw_path, "&".join(fields), headers, ";".join(names), payload])


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
