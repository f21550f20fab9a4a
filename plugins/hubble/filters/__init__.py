"""FlowFilters, compiled to masks over columns.

A request lets a flow pass if the allow list is empty or any of its filters matches, and none of the deny list does. A filter
is the AND of the fields that are set, a field the OR of its values.
"""
