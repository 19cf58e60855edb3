// Package v2 declares the objects of a YAML text; it is left out.
package v2

import (
	"errors"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// RegisterResource refuses every object.
func RegisterResource(
	_ *pulumi.Context, apiVersion, kind, name string, _ pulumi.Input, _ ...pulumi.ResourceOption,
) (pulumi.CustomResource, error) {
	return nil, errors.New("the components of yaml/v2, helm/v4 and kustomize/v2 are left out of the twin's build of " +
		"pulumi-kubernetes: " + apiVersion + " " + kind + " " + name)
}
