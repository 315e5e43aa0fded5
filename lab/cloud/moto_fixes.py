"""Where moto answers otherwise than EC2 in a way that a caller builds on.

One place for the lab's API and for tests that run moto themselves. `apply` patches the moto of
this process; what each fix follows is in the API's reference (RunInstances, Ensuring idempotency,
ModifyInstanceAttribute, CreateImage, CreateNatGateway, CreateVpcEndpoint, Route). It knows nothing
of the lab.
"""

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import camelcase_to_underscores
from moto.ec2.exceptions import DryRunClientError, EC2ClientError, OperationNotPermitted4
from moto.ec2.models.amis import AmiBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.models.nat_gateways import NatGatewayBackend
from moto.ec2.models.route_tables import Route
from moto.ec2.models.vpcs import VPCBackend
from moto.ec2.responses import EC2Response
from moto.ec2.responses.instances import InstanceResponse

_PLAIN_CREDITS = ("t1.", "t2.")  # every later burstable type is `unlimited` unless told otherwise


class IdempotentParameterMismatch(EC2ClientError):
    """A client token came again with other parameters."""

    code = "IdempotentParameterMismatch"

    def __init__(self, token: str) -> None:
        super().__init__(
            f"Arguments on this idempotent request are inconsistent with arguments used in "
            f"previous request(s) with the client token '{token}'."
        )


def _called(response: Any, action: str, method: Callable[[], Any]) -> Any:
    """Do an action: not at all if `DryRun`, once for each `ClientToken`."""
    params = dict(response._get_params())
    dry = params.pop("DryRun", False)
    if dry and action != "run_instances":  # that one checks its parameters first
        raise DryRunClientError
    token = params.pop("ClientToken", None)
    if dry or not token:
        return method()
    # On the backend, so that it is forgotten, saved and restored with it.
    known = response.ec2_backend.__dict__.setdefault("client_tokens", {})
    text = json.dumps(params, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()  # parameters may hold secrets
    if (action, token) in known:
        before, result = known[action, token]
        if before != digest:
            raise IdempotentParameterMismatch(token)
        return ActionResult(result)
    answer = method()
    known[action, token] = (digest, answer._result)
    return answer


def _call_action(response: Any, original: Callable[[Any], Any]) -> Any:
    action = camelcase_to_underscores(response._get_action())
    method = getattr(response, action, None)
    if method is not None:
        setattr(response, action, functools.partial(_called, response, action, method))
    return original(response)


def _run_instances(response: Any, original: Callable[[Any], Any]) -> Any:
    """Keep what moto drops of a launch: protection, credits, the tags of the interfaces."""
    answer = original(response)
    tags = response._parse_tag_specification().get("network-interface", {})
    for instance in answer._result.instances:
        instance.disable_api_termination = bool(response._get_param("DisableApiTermination"))
        instance.cpu_credits = response._get_param("CreditSpecification.CpuCredits")
        for nic in instance.nics.values():
            nic.add_tags(tags)
    return answer


def _terminate_instances(backend: Any, ids: list[str], original: Callable[..., Any]) -> Any:
    """One protected machine among them and none goes."""
    for instance in backend.get_multi_instances_by_id(ids):
        if instance.disable_api_termination is True:
            raise OperationNotPermitted4(instance.id)
    return original(backend, ids)


def _terminate(instance: Any, original: Callable[[Any], Any]) -> Any:
    """The elastic address comes free and the first interface goes with the machine
    (moto keeps both, so that its private address could never be used again)."""
    if instance._state.name == "terminated":
        return instance._state
    for address in instance.ec2_backend.addresses:
        if address.instance is instance or (address.eni and address.eni.instance is instance):
            address.instance = address.eni = address.association_id = None
    for nic in instance.nics.values():
        nic.public_ip = None
        if nic.description == "Primary network interface" and nic.id in instance.ec2_backend.enis:
            nic.delete_on_termination = True
        elif nic.id not in instance.ec2_backend.enis:
            nic.delete_on_termination = False
    return original(instance)


def _primary(instance: Any) -> Any:
    """The machine's first interface; None while it is being made."""
    return instance.__dict__.get("nics", {}).get(0)


def _shared(kept: str, on_interface: str) -> property:
    """An attribute that a machine and its first interface have in common."""

    def get(instance: Any) -> Any:
        nic = _primary(instance)
        return getattr(nic, on_interface) if nic else instance.__dict__.get(kept)

    def set_(instance: Any, value: Any) -> None:
        instance.__dict__[kept] = value
        nic = _primary(instance)
        if nic:
            setattr(nic, on_interface, value)

    return property(get, set_)


def _modify_metadata(backend: Any, instance_id: str, **given: Any) -> Any:
    """What is not given stays as it is."""
    options = backend.get_instance(instance_id).metadata_options
    for argument, name in {
        "http_tokens": "http_tokens",
        "hop_limit": "http_put_response_hop_limit",
        "http_endpoint": "http_endpoint",
        "http_protocol": "http_protocol_ipv6",
        "metadata_tags": "instance_metadata_tags",
    }.items():
        if given.get(argument) is not None:
            setattr(options, name, given[argument])
    return options


def _credits(instance: Any) -> str:
    plain = instance.instance_type.startswith(_PLAIN_CREDITS)
    return getattr(instance, "cpu_credits", None) or ("standard" if plain else "unlimited")


def _describe_credits(response: Any) -> ActionResult:
    found = response.ec2_backend.describe_instance_credit_specifications(
        response._get_param("InstanceIds", [])
    )
    told = [{"InstanceId": i.id, "CpuCredits": _credits(i)} for i in found]
    return ActionResult({"InstanceCreditSpecifications": told})


def _modify_credits(response: Any) -> ActionResult:
    done = []
    for item in response._get_param("InstanceCreditSpecifications", []):
        instance = response.ec2_backend.get_instance(item["InstanceId"])
        instance.cpu_credits = item["CpuCredits"]
        done.append({"InstanceId": instance.id})
    return ActionResult(
        {
            "SuccessfulInstanceCreditSpecifications": done,
            "UnsuccessfulInstanceCreditSpecifications": [],
        }
    )


def _create_image(backend: Any, *args: Any, original: Callable[..., Any], **kw: Any) -> Any:
    """Its snapshot has the tags that are meant for it (moto refuses them)."""
    given = kw.pop("tag_specifications")
    mine = [each for each in given if each["ResourceType"] == "snapshot"]
    others = [each for each in given if each not in mine]
    image = original(backend, *args, tag_specifications=others, **kw)
    for pair in (pair for each in mine for pair in each["Tags"]):
        image.ebs_snapshot.add_tag(pair["Key"], pair["Value"])
    return image


def _create_nat_gateway(backend: Any, *args: Any, original: Callable[..., Any], **kw: Any) -> Any:
    """Its private address is one of its subnet (moto draws any)."""
    made = original(backend, *args, **kw)
    nic = made._eni
    address = nic.subnet.get_available_subnet_ip(nic)
    nic.private_ip_address = made.private_ip = address
    nic.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": address}]
    made.address_set[0]["privateIp"] = address
    return made


def _delete_nat_gateway(backend: Any, ident: str, original: Callable[..., Any]) -> Any:
    """Its elastic address comes free and its interface goes; described as `deleted`."""
    if ident not in backend.nat_gateways:
        raise EC2ClientError("NatGatewayNotFound", f"The Nat Gateway {ident} was not found")
    gateway = original(backend, ident)
    for address in backend.addresses:
        if address.eni is gateway._eni:
            address.eni = address.association_id = None
    gateway._eni.public_ip = None
    if gateway._eni.id in backend.enis:
        gateway._eni.delete()
    return gateway


def _create_vpc_endpoint(backend: Any, *args: Any, original: Callable[..., Any], **kw: Any) -> Any:
    """A gateway unless said otherwise."""
    kw["endpoint_type"] = kw.get("endpoint_type") or "Gateway"
    return original(backend, *args, **kw)


def _modify_vpc_endpoint(backend: Any, *args: Any, original: Callable[..., Any], **kw: Any) -> None:
    """The routes of a gateway endpoint follow its route tables."""
    original(backend, *args, **kw)
    endpoint = backend.vpc_end_points[kw["vpc_id"]]
    if not endpoint.destination_prefix_list_id:
        return
    for table in kw.get("remove_route_tables") or []:
        _drop_routes(backend.get_route_table(table), endpoint)
    for table in kw.get("add_route_tables") or []:
        _drop_routes(backend.get_route_table(table), endpoint)
        backend.create_route(
            table,
            None,
            gateway_id=endpoint.id,
            destination_prefix_list_id=endpoint.destination_prefix_list_id,
        )


def _drop_routes(table: Any, endpoint: Any) -> None:
    for ident, route in list(table._routes.items()):
        if route.gateway is endpoint:
            del table._routes[ident]


def _delete_vpc_endpoints(backend: Any, vpce_ids: list[str], original: Callable[..., Any]) -> None:
    """It is gone, with its routes."""
    for ident in vpce_ids:
        endpoint = backend.vpc_end_points.get(ident)
        if endpoint is None:
            continue
        for table in backend.route_tables.values():
            _drop_routes(table, endpoint)
        if endpoint.vpc_endpoint_type != "Gateway":
            original(backend, vpce_ids=[ident])
        del backend.vpc_end_points[ident]


def _holder(route: Any) -> Any:
    """The machine that a route leads to, by itself or by its interface."""
    return route.instance or (route.interface.instance if route.interface else None)


def _route_instance(route: Any) -> str | None:
    machine = _holder(route)
    return machine.id if machine is not None and machine.state != "terminated" else None


def _route_interface(route: Any) -> str | None:
    nic = route.interface or (_primary(route.instance) if route.instance else None)
    return nic.id if nic else None


def _route_state(route: Any) -> str:
    """`blackhole` if what it leads to is gone."""
    backend = route.route_table.ec2_backend
    nic = _route_interface(route)
    gone = nic is not None and nic not in backend.enis
    gone |= bool(route.nat_gateway and route.nat_gateway.state == "deleted")
    gateway = getattr(route.gateway, "id", "")
    if gateway.startswith("igw-"):
        held = backend.internet_gateways.get(gateway)
        gone |= held is None or held.vpc is None or held.vpc.id != route.route_table.vpc_id
    return "blackhole" if gone else "active"


def _wrap(owner: type, name: str, fix: Callable[..., Any]) -> None:
    """Put ``fix`` around a method; it is given the one before as ``original``."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def fixed(*args: Any, **kwargs: Any) -> Any:
        return fix(*args, original=original, **kwargs)

    setattr(owner, name, fixed)


@functools.cache  # a second call finds it done
def apply() -> None:
    """Make the moto of this process answer as EC2 does; may be called more than once."""
    for owner, name, fix in (
        (EC2Response, "call_action", _call_action),
        (InstanceResponse, "run_instances", _run_instances),
        (InstanceBackend, "terminate_instances", _terminate_instances),
        (Instance, "terminate", _terminate),
        (AmiBackend, "create_image", _create_image),
        (NatGatewayBackend, "create_nat_gateway", _create_nat_gateway),
        (NatGatewayBackend, "delete_nat_gateway", _delete_nat_gateway),
        (VPCBackend, "create_vpc_endpoint", _create_vpc_endpoint),
        (VPCBackend, "modify_vpc_endpoint", _modify_vpc_endpoint),
        (VPCBackend, "delete_vpc_endpoints", _delete_vpc_endpoints),
    ):
        _wrap(owner, name, fix)
    replaced: list[tuple[type, str, Any]] = [
        (Instance, "security_groups", _shared("launch_groups", "_group_set")),
        (Instance, "source_dest_check", _shared("launch_check", "source_dest_check")),
        # moto adds the machine's groups to the interface's own; here they are the same.
        (NetworkInterface, "group_set", property(lambda nic: list(nic._group_set))),
        (InstanceBackend, "modify_instance_metadata_options", _modify_metadata),
        (InstanceResponse, "describe_instance_credit_specifications", _describe_credits),
        (InstanceResponse, "modify_instance_credit_specification", _modify_credits),
        (Route, "instance_id", property(_route_instance)),
        (Route, "network_interface_id", property(_route_interface)),
        (Route, "state", property(_route_state)),
    ]
    for owner, name, value in replaced:
        setattr(owner, name, value)
