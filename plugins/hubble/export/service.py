"""The exporters that the configuration asks for, each a service of its own: one that fails holds up no other."""

from __future__ import annotations

from collections.abc import Iterator

from axoneme.core.plugin import PluginContext
from axoneme.core.records import Service
from axoneme.plugins.hubble import observer
from axoneme.plugins.hubble.export.config import ExportSettings, request
from axoneme.plugins.hubble.export.file import JsonFile
from axoneme.plugins.hubble.export.otlp import Otlp
from axoneme.plugins.hubble.export.pump import Pump


def services(context: PluginContext) -> Iterator[Service]:
    """What runs for the settings; nothing without any."""
    settings: ExportSettings = context.config.export
    flows = observer.of(context)
    for number, file in enumerate(settings.files):
        yield Service(name=f"export-file-{number}", run=Pump(flows, request(file), JsonFile(file)).run)
    if settings.otlp.endpoint:
        sink = Otlp(settings.otlp, flows.node_name)
        yield Service(name="export-otlp", run=Pump(flows, request(settings.otlp), sink).run)
