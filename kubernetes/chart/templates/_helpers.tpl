{{/* The names of what belongs together. */}}
{{- define "authz.labels" -}}
app.kubernetes.io/name: authz
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .part | quote }}
{{- end }}

{{- define "authz.metadata" -}}
name: {{ printf "%s%s" .root.Release.Name .suffix | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "authz.labels" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
{{- end }}

{{- define "authz.image" -}}
{{- $tag := .image.tag | default .root.Chart.AppVersion -}}
{{- $between := ternary "" ":" (hasPrefix "@" $tag) -}}
image: {{ printf "%s%s%s" .image.repository $between $tag | quote }}
imagePullPolicy: {{ .image.pullPolicy | quote }}
{{- end }}

{{/* The profile "restricted" of the Pod Security Standards, on a root that cannot be written. */}}
{{- define "authz.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "authz.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
serviceAccountName: {{ .root.Release.Name | quote }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "authz.labels" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{/* One new replica is ready before an old one ends. */}}
{{- define "authz.strategy" -}}
revisionHistoryLimit: 3
strategy:
  type: RollingUpdate
  rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
selector:
  matchLabels:
    {{- include "authz.labels" . | nindent 4 }}
{{- end }}

{{/* The proxies of Envoy Gateway. Who may make pods elsewhere can give them these labels. */}}
{{- define "authz.proxies" -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ .Values.envoyGateway.proxyNamespace | quote }}
  podSelector:
    matchLabels:
      gateway.envoyproxy.io/owning-gateway-name: {{ .Values.envoyGateway.gateway | quote }}
      gateway.envoyproxy.io/owning-gateway-namespace: {{ .Release.Namespace | quote }}
{{- end }}

{{/* What the chart reads of authz.yaml, and what it refuses. */}}
{{- define "authz.checked" -}}
{{- $values := .Values -}}
{{- $config := fromYaml $values.config -}}
{{- if hasKey $config "Error" -}}
{{- fail "config: it is no YAML mapping" -}}
{{- end -}}
{{- if not (dig "redis" "url" "" $config) -}}
{{- fail "config: redis.url says nowhere where Redis is: each replica would count limits and keep revocations for itself" -}}
{{- end -}}
{{- $service := dig "service" (dict) $config -}}
{{- $plane := dig "data_plane" "envoy" $service | toString -}}
{{- if ne $plane (replace "-" "_" $values.dataPlane) -}}
{{- fail (printf "config: service.data_plane is %s, and dataPlane %s" $plane $values.dataPlane) -}}
{{- end -}}
{{- $notice := dig "drain_notice" "3s" $service | toString -}}
{{- if not (regexMatch "^[0-9]+s$" $notice) -}}
{{- fail "config: write service.drain_notice in whole seconds, as 3s" -}}
{{- end -}}
{{- $notice = trimSuffix "s" $notice | int -}}
{{- if lt $notice 3 -}}
{{- fail "config: service.drain_notice is too short for Envoy's health checks: write 3s or more" -}}
{{- end -}}
{{- $dns := add $values.dnsCacheSeconds 5 | int -}}
{{- range $name, $needs := dict "authz" (add $notice 10) "pages" 30 "envoy" 1 -}}
{{- $part := index $values $name -}}
{{- if and (ne $name "envoy") (lt (int $part.preStopSeconds) $dns) -}}
{{- fail (printf "%s.preStopSeconds: a new replica is known after dnsCacheSeconds and 5 s: write %d or more" $name $dns) -}}
{{- end -}}
{{- if lt (int $part.terminationGracePeriodSeconds) (add $part.preStopSeconds $needs | int) -}}
{{- fail (printf "%s.terminationGracePeriodSeconds: write %d or more" $name (add $part.preStopSeconds $needs)) -}}
{{- end -}}
{{- end -}}
{{- $listen := dig "gateway" "listen" "0.0.0.0:8443" $config | toString -}}
{{- if ne $listen "0.0.0.0:8443" -}}
{{- fail "config: gateway.listen: write 0.0.0.0:8443" -}}
{{- end -}}
{{- if eq (dig "gateway" "tls" "" $config | empty) (not (empty $values.tlsSecretName)) -}}
{{- fail "tlsSecretName: it is there where config has gateway.tls, and only there" -}}
{{- end -}}
{{- if and (gt (dig "gateway" "trusted_hops" 0 $config | int) 0) (eq $values.dataPlane "envoy") -}}
{{- if and $values.networkPolicy.enabled (not $values.networkPolicy.clients) -}}
{{- fail "networkPolicy.clients: with gateway.trusted_hops Envoy believes X-Forwarded-For of whoever reaches it: name the proxy in front, and nobody else" -}}
{{- end -}}
{{- end -}}
{{- if eq $values.dataPlane "envoy-gateway" -}}
{{- if dig "pages" "" $config -}}
{{- fail "config: Envoy Gateway cannot serve `pages`: use dataPlane envoy" -}}
{{- end -}}
{{- if $values.tlsSecretName -}}
{{- fail "config: Envoy Gateway ends TLS: gateway.tls is not for our Envoy behind it" -}}
{{- end -}}
{{- if gt (dig "workers" 1 $service | int) 1 -}}
{{- fail "config: behind Envoy Gateway, which is told one port, leave service.workers out and write more replicas" -}}
{{- end -}}
{{- range $name, $server := $config.servers -}}
{{- $upstream := dig "upstream" "" $server | toString -}}
{{- if not (regexMatch "^http://[a-z0-9]([-a-z0-9]*[a-z0-9])?(:[0-9]+)?(/[A-Za-z0-9/_.~-]*)?$" $upstream) -}}
{{- fail (printf "config: servers.%s.upstream: behind Envoy Gateway write http:// and a Service of this namespace, as http://files:8000/mcp" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{/* The ports of Check: one a worker. */}}
{{- define "authz.workers" -}}
{{- $config := include "authz.checked" . | fromYaml -}}
{{- dig "service" "workers" 1 $config | int -}}
{{- end }}
