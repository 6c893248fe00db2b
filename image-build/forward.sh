#!/bin/sh
# Forwards one port of this pod's network namespace, then sleeps until told to stop.
#
# SRC_PORT    the port that clients use
# SRC_RANGES  who may: CIDR, separated by commas or spaces; empty: nobody
# DEST_PROTO  TCP, UDP or SCTP
# DEST_IPS    where to: the first address of each family counts
# DEST_PORT   and which port there
#
# One nftables table of its own for each family, replaced in one transaction, so that a container
# that starts again changes nothing for the connections that there are.
set -eu

fail() {
    echo "servicelb: $*" >&2
    exit 1
}

number() {
    case "$2" in
        "" | *[!0-9]* | ??????*) fail "$1 is not a port: $2" ;;
    esac
    [ "$2" -ge 1 ] && [ "$2" -le 65535 ] || fail "$1 is not a port: $2"
}

# Only what an address or a range is made of may reach nft's language.
plain() {
    case "$2" in
        *[!0-9a-fA-F.:/]*) fail "$1 has more than addresses: $2" ;;
    esac
}

of_family() { # FAMILY WORDS...
    family=$1
    shift
    for word; do
        case "$word" in
            *:*) [ "$family" = ip ] || printf '%s ' "$word" ;;
            *) [ "$family" = ip6 ] || printf '%s ' "$word" ;;
        esac
    done
}

first() { echo "${1:-}"; }

listed() {
    out=
    for word; do out="$out${out:+, }$word"; done
    echo "$out"
}

rules() { # FAMILY DESTINATION
    table="$1 svclb_${proto}_$SRC_PORT"
    # shellcheck disable=SC2046,SC2086
    ranges=$(listed $(of_family "$1" $sources))
    [ "$1" = ip ] && type=ipv4_addr target="$2:$DEST_PORT" || type=ipv6_addr target="[$2]:$DEST_PORT"
    echo "add table $table"
    echo "delete table $table"
    echo "table $table {"
    echo "  set sources { type $type; flags interval; auto-merge;${ranges:+ elements = { $ranges \};} }"
    echo "  chain prerouting {"
    echo "    type nat hook prerouting priority dstnat; policy accept;"
    echo "    $1 saddr != $2 $proto dport $SRC_PORT counter dnat to $target"
    echo "  }"
    echo "  chain forward {"
    echo "    type filter hook forward priority filter; policy accept;"
    echo "    $ours ct direction original $1 saddr != @sources drop"
    echo "  }"
    echo "  chain postrouting {"
    echo "    type nat hook postrouting priority srcnat; policy accept;"
    echo "    $ours $1 daddr $2 masquerade"
    echo "  }"
    echo "}"
}

forwards() {
    [ "$(cat "/proc/sys/net/$1")" = 1 ]
}

number SRC_PORT "${SRC_PORT:-}"
number DEST_PORT "${DEST_PORT:-}"
case "${DEST_PROTO:-}" in
    TCP | tcp) proto=tcp ;;
    UDP | udp) proto=udp ;;
    SCTP | sctp) proto=sctp ;;
    *) fail "DEST_PROTO is none of TCP, UDP and SCTP: ${DEST_PROTO:-}" ;;
esac
sources=$(echo "${SRC_RANGES:-}" | tr ',' ' ')
targets=$(echo "${DEST_IPS:-}" | tr ',' ' ')
plain SRC_RANGES "$(echo "$sources" | tr -d ' ')"
plain DEST_IPS "$(echo "$targets" | tr -d ' ')"
ours="meta l4proto $proto ct status dnat ct original proto-dst $SRC_PORT"

# shellcheck disable=SC2046,SC2086
four=$(first $(of_family ip $targets)) six=$(first $(of_family ip6 $targets))
[ -n "$four$six" ] || fail "DEST_IPS has no address"
[ -z "$four" ] || forwards ipv4/ip_forward || fail "net.ipv4.ip_forward is not 1 in this pod"
if [ -n "$six" ] && ! forwards ipv6/conf/all/forwarding; then
    # A node's addresses are of both families even where the Service is of one.
    [ -n "$four" ] || fail "net.ipv6.conf.all.forwarding is not 1 in this pod"
    six=
fi
{
    [ -z "$four" ] || rules ip "$four"
    [ -z "$six" ] || rules ip6 "$six"
} | nft -f - || fail "nft refused the rules"
echo "servicelb: $proto $SRC_PORT goes to $four${four:+${six:+ and }}$six port $DEST_PORT"
exec /pause -P
