"""
Reads settings.json, and opens the log as it says.

A setting that is missing or no good has its default: a board at the other end of the country goes
on logging, and sends once the file is mended.
"""

import json
import sys
from binascii import hexlify

import machine

DEFAULTS = {
    "device": "",  # sent with each batch; "": the platform and the chip's own number
    "endpoint": None,  # the URL that readings are POSTed to; null keeps them on flash
    "headers": {},  # sent with each request, {"Authorization": "Bearer ..."}
    "cafile": None,  # for https://, the certificate to trust, such as "/ca.pem"
    "cache": "/cache",  # the log's folder
    "every": 10,  # seconds from one reading to the next
    "send_every": 30,  # seconds from one round of sending to the next
    "wifi_ssid": "",
    "wifi_password": "",
    "wifi_country": "",  # "DE": allows the channels of that country
    "ntp_host": "pool.ntp.org",  # null: readings have no time of their own
    "watchdog": True,
    "wakes_per_send": 6,  # main_sleep.py: how often it wakes before it turns Wi-Fi on
    "awake": 20,  # main_sleep.py: seconds for the link and for sending, each time
}
_DAY = 86400


def load(path="settings.json"):
    """Return the settings, a dict with every key of DEFAULTS, all of the right type."""
    config = dict(DEFAULTS)
    try:
        with open(path) as f:
            found = json.load(f)
        for name in found:
            if name in DEFAULTS:
                if _fits(name, found[name]):
                    config[name] = found[name]
                else:  # not what it is: it may be a password
                    print("settings.json: %s is no good; taken: %s" % (name, config[name]))
    except (OSError, ValueError, TypeError) as e:
        print("settings.json: cannot be read (%s); readings are kept" % type(e).__name__)
    if not config["device"]:
        config["device"] = sys.platform + "-" + hexlify(machine.unique_id()).decode()
    return config


def _fits(name, value):
    default = DEFAULTS[name]
    if default is None or name == "ntp_host":
        return value is None or isinstance(value, str)
    if isinstance(default, bool):
        return value is True or value is False
    if isinstance(default, int):
        # A day at most: a board's ticks go round after 12.
        return isinstance(value, (int, float)) and value is not True and 0 < value <= _DAY
    return isinstance(value, type(default))


def open_cache(config, **options):
    """
    Return the POSTCache of these settings; `options` are further arguments of it.

    With an endpoint, headers or a certificate that are no good it stores only; with a folder that
    is none, in the default one.
    """
    from postcache import POSTCache

    # Without a clock each would wait ten minutes for one before it is sent.
    stamp = "ts" if config["ntp_host"] else None
    try:
        return POSTCache(
            config["endpoint"],
            config["cache"],
            config["send_every"],
            {"device": config["device"]},
            headers=config["headers"],
            cafile=config["cafile"],
            timestamp_key=stamp,
            **options,
        )
    except (OSError, TypeError, ValueError) as e:
        print("settings.json: %s; readings are kept on flash until that is mended" % e)
    try:
        return POSTCache(None, config["cache"], timestamp_key=stamp)
    except (OSError, ValueError):  # a file is in the way, or a card is not there
        return POSTCache(None, DEFAULTS["cache"], timestamp_key=stamp)
