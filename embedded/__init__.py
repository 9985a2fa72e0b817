"""The platform without a cloud: runs the Pulumi programs in-process and provisions an emulated AWS."""
