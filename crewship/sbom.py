"""The software bill of materials of a deployment, as CycloneDX 1.6 JSON: the base image, system packages, Python packages.

A function of what is kept about the deployment, so the same deployment always has the same document, byte for byte.
"""

import uuid
from datetime import datetime
from importlib.metadata import version

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from crewship.contents import Build, Package, packages

MEDIA_TYPE = "application/vnd.cyclonedx+json; version=1.6"


def document(
    *, deployment_id: str, project: str, source_sha256: str, created_at: datetime, image: str | None, build: Build
) -> str:
    """The document.

    Args:
        deployment_id, project, source_sha256: Of the deployment.
        created_at: Its timestamp; aware.
        image: Id of the deployment's image.
        build: What it was built from.
    """
    deployment = Component(
        type=ComponentType.APPLICATION,
        name=project,
        version=deployment_id,
        bom_ref=deployment_id,
        properties=[
            Property(name="crewship:source_sha256", value=source_sha256),
            Property(name="crewship:python", value=build.python),
            *([Property(name="crewship:image", value=image)] if image else []),
        ],
    )
    folder, slash, last = build.base_name.rpartition("/")  # a colon before the last slash is a registry's port
    name, _, tag = last.partition(":")
    base = Component(
        type=ComponentType.CONTAINER,
        name=f"{folder}{slash}{name}",
        version=tag or None,
        bom_ref=build.base_image,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=build.base_image.removeprefix("sha256:"))],
    )
    python = [_python(name, package) for name, package in packages(build.lock).items()]
    system = list(_system(build))
    tool = Component(type=ComponentType.APPLICATION, name="crewship", version=version("crewship"), bom_ref="crewship")
    bom = Bom(
        components=[base, *python, *system],
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"crewship:{deployment_id}"),
    )
    bom.metadata.component = deployment
    bom.metadata.timestamp = created_at
    bom.metadata.tools.components.add(tool)
    bom.register_dependency(deployment, [base, *python])
    bom.register_dependency(base, system)
    return JsonV1Dot6(bom).output_as_string(indent=2)


def _python(name: str, package: Package) -> Component:
    url = PackageURL(type="pypi", name=name, version=package.version)
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        purl=url,
        bom_ref=f"pypi:{name}",
        external_references=[ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(package.url))]
        if package.url
        else [],
    )


def _system(build: Build) -> list[Component]:
    system = build.system
    found = []
    for package in system.packages:
        qualifiers = {"arch": package.architecture}
        if system.release:
            qualifiers["distro"] = f"{system.distribution}-{system.release}"
        found.append(
            Component(
                type=ComponentType.LIBRARY,
                name=package.name,
                version=package.version,
                purl=PackageURL(
                    type="deb",
                    namespace=system.distribution or "debian",
                    name=package.name,
                    version=package.version,
                    qualifiers=qualifiers,
                ),
                bom_ref=f"deb:{package.name}:{package.architecture}",
            )
        )
    return found
