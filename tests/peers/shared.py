"""What the scripts of pynetdicom share: data sets and answers as JSON, and a request that follows another at once."""

import time

from pydicom.dataset import Dataset


def data_set(keys):
    """A data set of keyword (or "gggg,eeee VR") to value; a list of objects is a sequence."""
    made = Dataset()
    for keyword, value in keys.items():
        value = [data_set(item) for item in value] if isinstance(value, list) else value
        if "," in keyword:
            tag, vr = keyword.split()
            made.add_new(int(tag.replace(",", ""), 16), vr, value)
        else:
            setattr(made, keyword, value)
    return made


def name(element):
    return element.keyword or f"{element.tag.group:04X},{element.tag.element:04X}"


def shown(element):
    if element.VR == "SQ":
        return [{name(inner): shown(inner) for inner in item} for item in element.value]
    if element.VM > 1:
        return [str(value) for value in element.value]
    return "" if element.value is None else str(element.value)


def before_request(association):
    """A thread of pynetdicom takes messages between two requests. One that has not woken since the last request counts as
    paused still, and then takes the first response of the next one away: of busy processors one answer in a hundred questions
    was lost."""
    while association._is_paused:
        time.sleep(0.001)
