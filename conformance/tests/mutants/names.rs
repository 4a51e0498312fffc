//! Bugs in names: two locks that are one.

use lockcore::{Kind, LockName, Namespace, Resource};

use crate::mutation::Mutation;

/// Sends another resource than it was given.
pub(crate) struct Renames(pub(crate) fn(&Resource) -> Resource);

impl Mutation for Renames {
    fn resource(&self, resource: &Resource) -> Resource {
        (self.0)(resource)
    }
}

fn named(resource: &Resource, name: &str) -> Resource {
    // What is no name any more stays what it was.
    let name = LockName::new(name).unwrap_or_else(|_| resource.name().clone());
    Resource::new(resource.namespace().clone(), resource.kind(), name)
}

pub(crate) fn lower_case(resource: &Resource) -> Resource {
    named(resource, &resource.name().as_str().to_lowercase())
}

pub(crate) fn trimmed(resource: &Resource) -> Resource {
    named(resource, resource.name().as_str().trim_end())
}

pub(crate) fn cut_short(resource: &Resource) -> Resource {
    let name = resource.name().as_str();
    named(resource, &name[..name.floor_char_boundary(64)])
}

pub(crate) fn up_to_the_first_nul(resource: &Resource) -> Resource {
    let name = resource.name().as_str();
    named(resource, name.split('\0').next().unwrap_or(name))
}

pub(crate) fn without_namespace(resource: &Resource) -> Resource {
    Resource::new(Namespace::default(), resource.kind(), resource.name().clone())
}

pub(crate) fn without_kind(resource: &Resource) -> Resource {
    let (namespace, name) = (resource.namespace().clone(), resource.name().clone());
    Resource::new(namespace, Kind::Mutex, name)
}
