// Policy packs, of which upstream's host of this age knows nothing: each is started in the virtual environment that its
// PulumiPolicy.yaml names and is told the stack's settings, both by upstream's present packages.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"

	"github.com/pulumi/pulumi/sdk/v3"
	"github.com/pulumi/pulumi/sdk/v3/go/common/apitype"
	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"github.com/pulumi/pulumi/sdk/v3/python/toolchain"
)

// RunPlugin starts a policy pack; any other plugin is started as upstream does.
func (host *pythonLanguageHost) RunPlugin(
	req *pulumirpc.RunPluginRequest, server pulumirpc.LanguageRuntime_RunPluginServer,
) error {
	if req.GetKind() != string(apitype.AnalyzerPlugin) {
		return host.runOtherPlugin(req, server)
	}
	command, err := packCommand(server.Context(), req)
	if err != nil {
		return err
	}
	streams, stdout, stderr, err := rpcutil.MakeRunPluginStreams(server, false)
	if err != nil {
		return err
	}
	defer streams.Close()
	// The engine tells the settings in a call; pulumi-policy reads them from its environment, before it can be called.
	proxy, stdout, err := sdk.NewPolicyProxy(server.Context(), stdout)
	if err != nil {
		return err
	}
	stack, err := proxy.AwaitConfiguration(server.Context())
	if err != nil {
		return err
	}
	settings, err := stackEnvironment(stack)
	if err != nil {
		return err
	}
	command.Env = append(append(command.Env, settings...), req.GetEnv()...)
	command.Stdout, command.Stderr = stdout, stderr
	if err := command.Start(); err != nil {
		return err
	}
	if err := proxy.Attach(server.Context(), command); err != nil {
		var ended *exec.ExitError
		if !errors.As(err, &ended) {
			return err
		}
		return server.Send(&pulumirpc.RunPluginResponse{
			Output: &pulumirpc.RunPluginResponse_Exitcode{Exitcode: int32(ended.ExitCode())},
		})
	}
	return streams.Close()
}

// packCommand is what runs a pack, in its own folder.
func packCommand(ctx context.Context, req *pulumirpc.RunPluginRequest) (*exec.Cmd, error) {
	folder := req.GetInfo().GetProgramDirectory()
	options := toolchain.PythonOptions{Root: req.GetInfo().GetRootDirectory(), ProgramDir: folder, Toolchain: toolchain.Pip}
	if value, named := req.GetInfo().GetOptions().AsMap()["virtualenv"]; named {
		name, isText := value.(string)
		if !isText {
			return nil, fmt.Errorf("PulumiPolicy.yaml: virtualenv is %v, and no text", value)
		}
		options.Virtualenv = name
	}
	python, err := toolchain.ResolveToolchain(options)
	if err != nil {
		return nil, err
	}
	if err := python.ValidateVenv(ctx); err != nil {
		return nil, err
	}
	arguments := append([]string{"-u", "-m", "pulumi.policy"}, req.GetArgs()...)
	command, err := python.Command(ctx, append(arguments, folder)...)
	if err != nil {
		return nil, err
	}
	command.Dir = folder
	return command, nil
}

// stackEnvironment is how a pack is told which stack it judges.
func stackEnvironment(stack *pulumirpc.AnalyzerStackConfigureRequest) ([]string, error) {
	if stack == nil {
		return nil, nil
	}
	config, err := json.Marshal(stack.GetConfig())
	if err != nil {
		return nil, err
	}
	return []string{
		"PULUMI_ORGANIZATION=" + stack.GetOrganization(),
		"PULUMI_PROJECT=" + stack.GetProject(),
		"PULUMI_STACK=" + stack.GetStack(),
		"PULUMI_DRY_RUN=" + strconv.FormatBool(stack.GetDryRun()),
		"PULUMI_CONFIG=" + string(config),
	}, nil
}
