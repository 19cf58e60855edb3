// Package kubernetes holds what the plugin compiles of its own Go SDK, which is 300 MB and 15 minutes of a processor.
//
// Only three components (yaml/v2, helm/v4 and kustomize/v2) touch that SDK; this program declares none of them.
package kubernetes

import (
	"reflect"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// UntypedArgs are the arguments of an object of any kind.
type UntypedArgs map[string]any

var untyped = reflect.TypeOf((*map[string]any)(nil)).Elem()

// ElementType makes it an input of the SDK's.
func (UntypedArgs) ElementType() reflect.Type { return untyped }

var _ pulumi.Input = UntypedArgs{}
