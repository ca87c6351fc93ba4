"""Who the service under a soak signs in as, and its password."""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.secret_files import SecretFiles
from tests.support.secure_broker import SecureBroker, set_passwords
from tests.support.secure_listeners import LISTENERS
from tests.support.topics import admin_of

USER = "alice"
LISTENER = "REAUTH"
MECHANISM = "SCRAM-SHA-512"
# in all passwords, and nowhere else
SECRET = "s3cret"


class Credentials:
    """A user with a password, which the broker knows and a file holds.

    Attributes:
        environ: the settings of the service that signs in so.
    """

    def __init__(self, broker: SecureBroker, folder: Path) -> None:
        self._broker = broker
        self._password = broker.users[USER]
        self._files = SecretFiles(folder, {"password": self._password})
        self.environ = {
            "KAFKA_SECURITY_PROTOCOL": LISTENERS[LISTENER],
            "KAFKA_SSL_CAFILE": str(broker.ca),
            "KAFKA_SASL_MECHANISM": MECHANISM,
            "KAFKA_SASL_USERNAME": USER,
            "KAFKA_SASL_PASSWORD_FILE": str(self._files.path("password")),
        }

    def choose_password(self, chance: random.Random) -> None:
        """For `tell_the_broker` and `write_the_file` to use from now on."""
        self._password = f"{SECRET} {chance.getrandbits(64):x}"

    def tell_the_broker(self) -> None:
        # a new one each time, for the broker moves
        set_passwords(admin_of(self._broker.kafka.address), {USER: self._password})

    def write_the_file(self) -> None:
        """Who was refused tries again within a second, be it the same password."""
        self._files.change({"password": self._password})
