"""Holds audit messages to the schema of PS3.15 A.5.1: elements, their order, attributes and values.

Each line of the file is one message. What is not as the schema has it ends the program with a reason.
"""

import base64
import re
import sys
import xml.etree.ElementTree as ET

DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def fail(element, why):
    sys.exit(f"{element.tag}: {why}: {ET.tostring(element).decode()}")


def attributes(element, required, optional=()):
    for name in required:
        if not element.get(name):
            fail(element, f"lacks {name}")
    for name in element.keys():
        if name not in required and name not in optional:
            fail(element, f"has {name}")


def code(element):
    attributes(element, ["csd-code", "codeSystemName", "originalText"], ["displayName"])
    if len(element):
        fail(element, "has elements")


def children(element, *expected):
    """Checks the order of the children: names with '', '?', '*' or '+'."""
    rest = list(element)
    for name in expected:
        kind = name[-1] if name[-1] in "?*+" else ""
        name = name.rstrip("?*+")
        count = 0
        while rest and rest[0].tag == name and (kind in ("*", "+") or count == 0):
            CHECKS[name](rest.pop(0))
            count += 1
        if count == 0 and kind in ("", "+"):
            fail(element, f"lacks {name}")
    if rest:
        fail(element, f"has {rest[0].tag} in this place")


def one_of(element, name, values):
    if element.get(name) is not None and element.get(name) not in values:
        fail(element, f"{name} is {element.get(name)}")


def event(element):
    attributes(element, ["EventDateTime", "EventOutcomeIndicator"], ["EventActionCode"])
    one_of(element, "EventActionCode", "CRUDE")
    one_of(element, "EventOutcomeIndicator", ["0", "4", "8", "12"])
    if not DATE_TIME.fullmatch(element.get("EventDateTime")):
        fail(element, "has no moment")
    children(element, "EventID", "EventTypeCode*", "EventOutcomeDescription?")


def active(element):
    optional = ["AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"]
    attributes(element, ["UserID", "UserIsRequestor"], optional)
    one_of(element, "UserIsRequestor", ["true", "false"])
    one_of(element, "NetworkAccessPointTypeCode", "12345")
    children(element, "RoleIDCode*", "MediaIdentifier?")


def medium(element):
    attributes(element, [])
    children(element, "MediaType")


def source(element):
    attributes(element, ["AuditSourceID"], ["AuditEnterpriseSiteID"])


def participant_object(element):
    optional = ["ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole"]
    optional += ["ParticipantObjectDataLifeCycle", "ParticipantObjectSensitivity"]
    attributes(element, ["ParticipantObjectID"], optional)
    one_of(element, "ParticipantObjectTypeCode", "1234")
    # Either a name or a query.
    what = "ParticipantObjectName" if element.find("ParticipantObjectQuery") is None else "ParticipantObjectQuery"
    children(element, "ParticipantObjectIDTypeCode", what, "ParticipantObjectDetail*", "ParticipantObjectDescription*")


def description(element):
    attributes(element, [])
    children(element, "SOPClass*")


def detail(element):
    attributes(element, ["type", "value"])
    base64.b64decode(element.get("value"), validate=True)


def query(element):
    base64.b64decode(element.text, validate=True)


def sop_class(element):
    attributes(element, ["NumberOfInstances"], ["UID"])
    int(element.get("NumberOfInstances"))


def text(element):
    if len(element) or element.keys():
        fail(element, "is no text")


CHECKS = {
    "EventIdentification": event,
    "EventID": code,
    "EventTypeCode": code,
    "EventOutcomeDescription": text,
    "ActiveParticipant": active,
    "RoleIDCode": code,
    "MediaIdentifier": medium,
    "MediaType": code,
    "AuditSourceIdentification": source,
    "ParticipantObjectIdentification": participant_object,
    "ParticipantObjectIDTypeCode": code,
    "ParticipantObjectName": text,
    "ParticipantObjectQuery": query,
    "ParticipantObjectDetail": detail,
    "ParticipantObjectDescription": description,
    "SOPClass": sop_class,
}

with open(sys.argv[1], encoding="utf-8") as file:
    messages = file.read().splitlines()
for message in messages:
    root = ET.fromstring(message)
    if root.tag != "AuditMessage":
        fail(root, "is no audit message")
    children(
        root,
        "EventIdentification",
        "ActiveParticipant+",
        "AuditSourceIdentification+",
        "ParticipantObjectIdentification*",
    )
print(f"{len(messages)} messages")
