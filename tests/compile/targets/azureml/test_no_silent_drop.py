"""Every field that KFP's schema has is mapped, warned of or refused; a new one fails here until somebody decides."""

import yaml
from kfp import dsl

from penstock.compile import kubernetes_document
from penstock.compile.documents import messages
from penstock.compile.targets.azureml import convert, features, kubernetes_fields

# What lies behind each message but for what is listed below is read into the graph, and from there into jobs.
ELSEWHERE = {
    "ComponentOutputsSpec.ArtifactSpec.properties": "old-properties",
    "ComponentOutputsSpec.ArtifactSpec.custom_properties": "old-properties",
    "ComponentSpec.task_config_passthroughs": "task-config",
    "PipelineDeploymentConfig.ExecutorSpec.custom_job": "executor",
    "PipelineDeploymentConfig.ExecutorSpec.resolver": "executor",
    "PipelineDeploymentConfig.ImporterSpec.custom_properties": "old-properties",
    "PipelineDeploymentConfig.ImporterSpec.download_to_workspace": "workspace-import",
    "PipelineDeploymentConfig.ImporterSpec.properties": "old-properties",
    "PipelineDeploymentConfig.PipelineContainerSpec.lifecycle": "executor",
    "PipelineSpec.default_pipeline_root": "pipeline-root",
    "PipelineTaskSpec.CachingOptions.cache_key": "cache-key",
    "SinglePlatformSpec.config": "kubernetes-config",
    "SinglePlatformSpec.pipelineConfig": "kubernetes-lost",
}
MAPPED = {
    "ArtifactIteratorSpec": ["items", "item_input"],
    "ArtifactIteratorSpec.ItemsSpec": ["input_artifact"],
    "ArtifactTypeSchema": ["schema_title", "schema_uri", "instance_schema", "schema_version"],
    "ComponentInputsSpec": ["artifacts", "parameters"],
    "ComponentInputsSpec.ArtifactSpec": ["artifact_type", "is_artifact_list", "is_optional", "description"],
    "ComponentInputsSpec.ParameterSpec": [
        "type", "parameter_type", "default_value", "is_optional", "description", "literals",
    ],
    "ComponentOutputsSpec": ["artifacts", "parameters"],
    "ComponentOutputsSpec.ArtifactSpec": ["artifact_type", "metadata", "is_artifact_list", "description"],
    "ComponentOutputsSpec.ParameterSpec": ["type", "parameter_type", "description"],
    "ComponentRef": ["name"],
    "ComponentSpec": ["input_definitions", "output_definitions", "dag", "executor_label", "single_platform_specs"],
    "DagOutputsSpec": ["artifacts", "parameters"],
    "DagOutputsSpec.ArtifactSelectorSpec": ["producer_subtask", "output_artifact_key"],
    "DagOutputsSpec.DagOutputArtifactSpec": ["artifact_selectors"],
    "DagOutputsSpec.DagOutputParameterSpec": ["value_from_parameter", "value_from_oneof"],
    "DagOutputsSpec.ParameterSelectorSpec": ["producer_subtask", "output_parameter_key"],
    "DagOutputsSpec.ParameterSelectorsSpec": ["parameter_selectors"],
    "DagSpec": ["tasks", "outputs"],
    "ParameterIteratorSpec": ["items", "item_input"],
    "ParameterIteratorSpec.ItemsSpec": ["raw", "input_parameter"],
    "PipelineDeploymentConfig": ["executors"],
    "PipelineDeploymentConfig.ExecutorSpec": ["container", "importer"],
    "PipelineDeploymentConfig.ImporterSpec": ["artifact_uri", "type_schema", "reimport", "metadata"],
    "PipelineDeploymentConfig.PipelineContainerSpec": ["image", "command", "args", "resources", "env"],
    "PipelineDeploymentConfig.PipelineContainerSpec.EnvVar": ["name", "value"],
    "PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec": [
        "cpu_limit", "memory_limit", "cpu_request", "memory_request", "resource_cpu_limit", "resource_memory_limit",
        "resource_cpu_request", "resource_memory_request", "accelerator",
    ],
    "PipelineDeploymentConfig.PipelineContainerSpec.ResourceSpec.AcceleratorConfig": [
        "type", "count", "resource_type", "resource_count",
    ],
    "PipelineInfo": ["name", "display_name", "description"],
    "PipelineSpec": ["pipeline_info", "deployment_spec", "sdk_version", "schema_version", "components", "root"],
    "PipelineTaskInfo": ["name"],
    "PipelineTaskSpec": [
        "task_info", "inputs", "dependent_tasks", "caching_options", "component_ref", "trigger_policy",
        "artifact_iterator", "parameter_iterator", "retry_policy", "iterator_policy",
    ],
    "PipelineTaskSpec.CachingOptions": ["enable_cache"],
    "PipelineTaskSpec.IteratorPolicy": ["parallelism_limit"],
    "PipelineTaskSpec.RetryPolicy": ["max_retry_count", "backoff_duration", "backoff_factor", "backoff_max_duration"],
    "PipelineTaskSpec.TriggerPolicy": ["condition", "strategy"],
    "PlatformDeploymentConfig": ["executors"],
    "PlatformSpec": ["platforms"],
    "SinglePlatformSpec": ["deployment_spec", "platform"],
    "TaskInputsSpec": ["parameters", "artifacts"],
    "TaskInputsSpec.InputArtifactSpec": ["task_output_artifact", "component_input_artifact"],
    "TaskInputsSpec.InputArtifactSpec.TaskOutputArtifactSpec": ["producer_task", "output_artifact_key"],
    "TaskInputsSpec.InputParameterSpec": [
        "task_output_parameter", "runtime_value", "component_input_parameter", "task_final_status",
        "parameter_expression_selector",
    ],
    "TaskInputsSpec.InputParameterSpec.TaskFinalStatus": ["producer_task"],
    "TaskInputsSpec.InputParameterSpec.TaskOutputParameterSpec": ["producer_task", "output_parameter_key"],
    "Value": ["int_value", "double_value", "string_value"],
    "ValueOrRuntimeParameter": ["constant_value", "runtime_parameter", "constant"],
}  # fmt: skip


def fields() -> set[str]:
    """Return every field below a spec and a platform spec, but for what lies behind those that are found as a whole."""
    kinds = messages()
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [kinds.PipelineSpec.DESCRIPTOR, kinds.PipelineDeploymentConfig.DESCRIPTOR, kinds.PlatformSpec.DESCRIPTOR]
    while waiting:
        kind = waiting.pop()
        if kind.full_name in seen or kind.full_name.startswith("google.protobuf"):
            continue
        seen.add(kind.full_name)
        name = kind.full_name.removeprefix("ml_pipelines.")
        for field in kind.fields:
            if not kind.GetOptions().map_entry:
                found.add(f"{name}.{field.name}")
            if field.message_type and f"{name}.{field.name}" not in ELSEWHERE:
                waiting.append(field.message_type)
    return found


def test_every_field_is_mapped_or_found():
    mapped = {f"{message}.{name}" for message, names in MAPPED.items() for name in names}
    assert not mapped & ELSEWHERE.keys()
    assert fields() == mapped | ELSEWHERE.keys()
    assert {*ELSEWHERE.values()} <= {feature.code for feature in features.FEATURES}


def test_every_field_of_kubernetess_document_has_a_row():
    assert {row.name for row in kubernetes_fields.FIELDS} == {*kubernetes_document.TASK}
    assert {row.name for row in kubernetes_fields.PIPELINE_FIELDS} == {*kubernetes_document.PIPELINE["pipelineConfig"]}


def test_what_the_graph_leaves_out_is_found_in_the_document(compiled):
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def save(data: dsl.Output[dsl.Dataset]):
        pass

    @dsl.pipeline(name="p")
    def pipeline():
        save()

    document = yaml.safe_load(compiled(pipeline).read_text())
    port = document["components"]["comp-save"]["outputDefinitions"]["artifacts"]["data"]
    port["properties"] = {"rows": {"constant": 3}}
    document["defaultPipelineRoot"] = "gs://bucket/root"
    document["root"]["dag"]["tasks"]["save"]["cachingOptions"] = {"enableCache": True, "cacheKey": "k"}
    done = convert.convert_text(yaml.safe_dump(document), "spec", {})
    assert [(found.code, found.path) for found in done.findings] == [
        ("old-properties", ""),
        ("pipeline-root", ""),
        ("cache-key", "save"),
    ]
