"""Reads a hive with regipy, python-registry and hivexml and compares all of it with what `silo hive ls` says.

Usage: hives.py SILO HIVE. Prints a line for each reader; ends with 1 at a difference.
"""
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from Registry import Registry
from regipy.registry import RegistryHive

silo, path = sys.argv[1:]


def ours():
    text = subprocess.run([silo, "hive", "ls", "-r", "--json", path], check=True, capture_output=True).stdout
    tree = {}

    def walk(key, at):
        tree[at] = {v["name"]: v["hex"] for v in key["values"]}
        for subkey in key["subkeys"]:
            walk(subkey, at + (subkey["name"],))

    walk(json.loads(text), ())
    return tree


def python_registry():
    tree = {}

    def walk(key, at):
        tree[at] = {("" if v.name() == "(default)" else v.name()): v.raw_data().hex() for v in key.values()}
        for subkey in key.subkeys():
            walk(subkey, at + (subkey.name(),))

    walk(Registry.Registry(path).root(), ())
    return tree


def regipy():
    tree = {}

    def walk(key, at):
        # It gives no raw data: names only.
        tree[at] = {("" if v.name == "(default)" else v.name): None for v in key.iter_values()}
        for subkey in key.iter_subkeys() if key.subkey_count else ():
            walk(subkey, at + (subkey.name,))

    walk(RegistryHive(path).root, ())
    return tree


def hivexml():
    tree = {}
    text = subprocess.run(["hivexml", path], check=True, capture_output=True).stdout

    def walk(node, at):
        tree[at] = {value.get("key", ""): None for value in node.findall("value")}
        for subkey in node.findall("node"):
            walk(subkey, at + (subkey.get("name"),))

    walk(ElementTree.fromstring(text).find("node"), ())
    return tree


def as_regipy_says(name):
    """It takes Latin-1 names for UTF-8."""
    return name.encode("latin-1").decode("utf-8", "replace") if all(ord(c) < 256 for c in name) else name


wanted, differs = ours(), False
for reader in python_registry, regipy, hivexml:
    said = as_regipy_says if reader is regipy else str
    expected = {tuple(map(said, at)): {said(n): d for n, d in values.items()} for at, values in wanted.items()}
    got = reader()
    for at in sorted(expected.keys() | got.keys()):
        a, b = expected.get(at), got.get(at)
        if a is None or b is None:
            print(f"{reader.__name__}: {at}: only {'it' if a is None else 'silo'} has this key")
            differs = True
            continue
        for name in sorted(a.keys() | b.keys()):
            if name not in a or name not in b or b[name] not in (None, a[name]):
                print(f"{reader.__name__}: {at} {name!r}: silo {a.get(name, '-')[:80]}, it {(b.get(name) or '-')[:80]}")
                differs = True
    print(f"{reader.__name__}: {len(got)} keys, {sum(map(len, got.values()))} values")
sys.exit(differs)
